"""Cost of a plan, and what reduces it: cached features and compiled steps, if they pay off."""

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


def price(plan: Plan, loaded: Loaded, work: Work, known: Known | None) -> tuple[Plan, Recipe, dict[str, Option]]:
    """Decide which phases train from cached features and which are compiled, and estimate time and memory.

    Returns the plan and the recipe with these choices, and the options of phases with cached features, by name. `known`
    is an earlier estimate, of a run that is resumed; None: measure.
    """
    settled, accelerator, input_size = work.settled, loaded.accelerator, loaded.config.input_size
    device, emit = accelerator.device, loaded.emit
    emit(Progress("splitting the network where its frozen part ends", 0, 0))
    options, reasons = use_cache.options(plan, loaded, work)
    measured = None
    if known is None:
        emit(Progress("estimating time and memory", 0, 0))
        with explained_memory(settled.batch, input_size[-1]):
            measured = estimate(
                plan,
                loaded,
                work,
                options,
                seconds_per_image=work.loader.seconds_per_image(),
                hidden=work.loader.ahead and device.type != "cpu",
            )
    choice = use_cache.choose(options, reasons, measured, settled, accelerator)
    plan = with_caches(plan, {name: option.plan for name, option in choice.options.items()}, choice.reasons)
    cost = known
    if measured is not None:
        costs = [
            each.cached if each.cached and name in choice.options else each.whole for name, each in measured.items()
        ]
        seconds = dict(zip(measured, (each.seconds for each in costs), strict=True))
        total = sum(seconds.values())
        paces = {name: _possible_paces(each, settled, name in choice.options) for name, each in measured.items()}
        if settled.compile != "off":
            if settled.compile != "auto" or device.type == "cuda":
                emit(Progress("measuring whether compiling pays off", 0, 0))
            compiling = compile.choose(plan, seconds, loaded, settled)
            plan = with_compiled(plan, [*compiling.saved], compiling.notes)
            total -= sum(compiling.saved.values())
            paces |= {phase.name: (Pace((seconds[phase.name] - compiling.saved[phase.name]) / phase.epochs),)
                      for phase in plan.phases if phase.name in compiling.saved}  # fmt: skip
        both = _trainings(settled, loaded.dataset)
        cost = both * total, max(each.memory for each in costs), both * sum(each.waiting for each in costs)
        plan = with_paces(plan, {name: tuple(pace.times(both) for pace in ways) for name, ways in paces.items()})
    elif settled.compile not in ("auto", "off"):  # a resumed run
        plan = with_compiled(plan, asked_phases(settled.compile, plan.phases, "compile"))
    assert cost is not None
    compiled = ",".join(phase.name for phase in plan.phases if phase.compiled)
    plan = replace(plan, seconds=cost[0], memory_bytes=cost[1], data_wait=cost[2])
    return plan, replace(settled, cache=choice.setting, compile=compiled or "off"), choice.options


def _trainings(recipe: Recipe, dataset: Dataset) -> float:
    """The time of all training relative to the first one, at most: the second one has more images."""
    if recipe.refit != "on":
        return 1.0
    first, more = len(dataset.train), len(dataset.val)
    return 1.0 + (first + more) / first


def _possible_paces(phase: Costs, recipe: Recipe, cached: bool) -> tuple[Pace, ...]:
    """The paces possible if a phase gets another number of epochs: `auto` would decide again."""
    if phase.cached is None or (recipe.cache != "auto" and not cached):
        return (phase.whole.pace,)
    return (phase.whole.pace, phase.cached.pace) if recipe.cache == "auto" else (phase.cached.pace,)
