"""What a plan will cost, and what makes it cheaper: kept activations and compiled steps, where they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.data import TrainLoader
from zoo.events import Listener, Progress
from zoo.recipes.plan import Pace, Plan, with_caches, with_compiled, with_estimate, with_paces
from zoo.recipes.planner import asked_phases
from zoo.recipes.recipe import Recipe
from zoo.training.autotune import compile, use_cache
from zoo.training.autotune.cost import Costs, estimate
from zoo.training.frozen_cache.compute import Material
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.losses.objective import Objective
from zoo.training.memory import explained_memory

Cost = tuple[float, int, float | None]  # seconds, bytes, and seconds of waiting for data


@dataclass(frozen=True, slots=True)
class Costed:
    """A plan with all that was decided about how to carry it out."""

    plan: Plan
    settled: Recipe
    caches: dict[str, Option]  # how phases train from kept activations, by name


def costed(
    plan: Plan,
    material: Material,
    objective: Objective,
    loader: TrainLoader,
    input_size: tuple[int, int, int],
    emit: Listener,
    known: Cost | None,
) -> Costed:
    """Decide which phases train from kept activations and which are compiled, and estimate what it all takes.

    Args:
        plan: The plan.
        material: The network, the images, the recipe.
        objective: What is minimised; it may want more than activations, and go back more than once.
        loader: Of training images.
        input_size: (C, H, W), pixels.
        emit: Told about progress.
        known: What was estimated before, for a run that goes on; None: measure it.

    Raises:
        RecipeError: The recipe names a phase that there is not.
    """
    settled, accelerator = material.recipe, material.accelerator
    device = accelerator.device.type
    emit(Progress("splitting the network where its frozen part ends", 0, 0))
    could, reasons = use_cache.options(plan, material, objective, input_size)
    measured = None
    if known is None:
        emit(Progress("estimating time and memory", 0, 0))
        with explained_memory(settled.batch, input_size[-1]):
            measured = estimate(
                plan,
                material.model,
                material.groups,
                settled,
                objective,
                accelerator,
                input_size=input_size,
                training_images=len(material.dataset.fit),
                choosing_images=len(material.dataset.choose),
                seconds_per_image=loader.seconds_per_image(),
                hidden=loader.ahead and device != "cpu",
                options=could,
                chunk=material.chunk,
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
            if settled.compile != "auto" or device == "cuda":
                emit(Progress("looking whether compiling pays", 0, 0))
            pays = compile.choose(
                plan, seconds, material.model, material.groups, settled, accelerator, input_size=input_size
            )
            plan = with_compiled(plan, [*pays.saved], pays.notes)
            total -= sum(pays.saved.values())
            paces |= {phase.name: (Pace((seconds[phase.name] - pays.saved[phase.name]) / phase.epochs),)
                      for phase in plan.phases if phase.name in pays.saved}  # fmt: skip
        both = _trainings(material)
        cost = both * total, max(each.memory for each in taken), both * sum(each.waiting for each in taken)
        plan = with_paces(plan, {name: tuple(pace.times(both) for pace in ways) for name, ways in paces.items()})
    elif settled.compile not in ("auto", "off"):  # a run that goes on
        plan = with_compiled(plan, asked_phases(settled.compile, plan, "compile"))
    assert cost is not None
    compiled = ",".join(phase.name for phase in plan.phases if phase.compiled)
    settled = replace(settled, cache=choice.setting, compile=compiled or "off")
    return Costed(with_estimate(plan, *cost), settled, choice.options)


def _trainings(material: Material) -> float:
    """How many times what the first training takes all training takes, at most: the second has more images."""
    if material.recipe.refit != "on":
        return 1.0
    first, chosen = len(material.dataset.fit), len(material.dataset.choose)
    return 1.0 + (first + chosen) / first


def _open(phase: Costs, recipe: Recipe, kept: bool) -> tuple[Pace, ...]:
    """The ways to train a phase that are open where its epochs are others: auto would decide again."""
    if phase.above is None or (recipe.cache != "auto" and not kept):
        return (phase.whole.pace,)
    return (phase.whole.pace, phase.above.pace) if recipe.cache == "auto" else (phase.above.pace,)
