"""What a plan will cost, and what makes it cheaper: kept activations and compiled steps, where they pay."""

from __future__ import annotations

from dataclasses import replace

from zoo.data import Dataset
from zoo.events import Progress
from zoo.recipes.plan import Pace, Plan, with_caches, with_compiled, with_paces
from zoo.recipes.planner import asked_phases
from zoo.recipes.recipe import Recipe
from zoo.training.autotune import compile, use_cache
from zoo.training.autotune.cost import Costs, estimate
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.loaded import Loaded, Work
from zoo.training.memory import explained_memory

Known = tuple[float, int, float | None]  # seconds, bytes, and seconds of waiting for data


def price(plan: Plan, loaded: Loaded, work: Work, known: Known | None) -> tuple[Plan, Work, dict[str, Option]]:
    """Decide which phases train from kept activations and which are compiled, and estimate what it all takes.

    Args:
        plan: The plan.
        loaded: The network and the images.
        work: How they are trained.
        known: What was estimated before, for a run that goes on; None: measure it.

    Returns:
        The plan with all of that, the work with it settled, and how phases train from kept activations, by name.
    """
    settled, accelerator, input_size = work.settled, loaded.accelerator, loaded.config.input_size
    device, emit = accelerator.device, loaded.emit
    emit(Progress("splitting the network where its frozen part ends", 0, 0))
    could, reasons = use_cache.options(plan, loaded, work)
    measured = None
    if known is None:
        emit(Progress("estimating time and memory", 0, 0))
        with explained_memory(settled.batch, input_size[-1]):
            measured = estimate(
                plan,
                loaded,
                work,
                could,
                seconds_per_image=work.loader.seconds_per_image(),
                hidden=work.loader.ahead and device.type != "cpu",
            )
    choice = use_cache.choose(could, reasons, measured, settled, accelerator)
    plan = with_caches(plan, {name: option.plan for name, option in choice.options.items()}, choice.reasons)
    cost = known
    if measured is not None:
        taken = [each.above if each.above and name in choice.options else each.whole for name, each in measured.items()]
        seconds = dict(zip(measured, (each.seconds for each in taken), strict=True))
        total = sum(seconds.values())
        paces = {name: _open(each, settled, name in choice.options) for name, each in measured.items()}
        if settled.compile != "off":
            if settled.compile != "auto" or device.type == "cuda":
                emit(Progress("looking whether compiling pays", 0, 0))
            pays = compile.choose(plan, seconds, loaded, settled)
            plan = with_compiled(plan, [*pays.saved], pays.notes)
            total -= sum(pays.saved.values())
            paces |= {phase.name: (Pace((seconds[phase.name] - pays.saved[phase.name]) / phase.epochs),)
                      for phase in plan.phases if phase.name in pays.saved}  # fmt: skip
        both = _trainings(settled, loaded.dataset)
        cost = both * total, max(each.memory for each in taken), both * sum(each.waiting for each in taken)
        plan = with_paces(plan, {name: tuple(pace.times(both) for pace in ways) for name, ways in paces.items()})
    elif settled.compile not in ("auto", "off"):  # a run that goes on
        plan = with_compiled(plan, asked_phases(settled.compile, plan.phases, "compile"))
    assert cost is not None
    compiled = ",".join(phase.name for phase in plan.phases if phase.compiled)
    settled = replace(settled, cache=choice.setting, compile=compiled or "off")
    return (
        replace(plan, seconds=cost[0], memory_bytes=cost[1], data_wait=cost[2]),
        replace(work, settled=settled),
        choice.options,
    )


def _trainings(recipe: Recipe, dataset: Dataset) -> float:
    """How many times what the first training takes all training takes, at most: the second has more images."""
    if recipe.refit != "on":
        return 1.0
    first, chosen = len(dataset.train), len(dataset.val)
    return 1.0 + (first + chosen) / first


def _open(phase: Costs, recipe: Recipe, kept: bool) -> tuple[Pace, ...]:
    """The ways to train a phase that are open where its epochs are others: auto would decide again."""
    if phase.above is None or (recipe.cache != "auto" and not kept):
        return (phase.whole.pace,)
    return (phase.whole.pace, phase.above.pace) if recipe.cache == "auto" else (phase.above.pace,)
