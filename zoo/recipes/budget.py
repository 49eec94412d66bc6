"""Budget of an adaptation, in time or steps, and a recipe's epochs fitted to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from zoo.base.durations import parse_seconds, parse_steps, written
from zoo.errors import RecipeError
from zoo.recipes.plan import Pace, Plan
from zoo.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Budget:
    """The limit of training, exactly one of the two."""

    seconds: float | None = None  # of training, as estimated before it starts
    steps: int | None = None  # optimizer steps

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `90s`, `10m`, `1.5h` or `500steps`.

        Raises:
            RecipeError: It is neither a time nor a number of steps, or it is 0.
        """
        if (seconds := parse_seconds(text)) or (steps := parse_steps(text)):
            return cls(seconds=seconds) if seconds else cls(steps=steps)
        raise RecipeError(
            f"a budget is a time or a number of steps, not {text!r}", fix="write it as 90s, 10m, 2h or 500steps"
        )

    def __str__(self) -> str:
        """The budget as users write it."""
        return f"{self.steps}steps" if self.steps is not None else written(self.seconds or 0.0)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with this total of epochs, in its phases' proportion; a remainder goes to the cheaper early ones.

    Raises RecipeError if there are fewer epochs than phases, or the recipe gives its phases in full.
    """
    if recipe.phases:
        what = "a budget decides the epochs, and the phases of this recipe give them already"
        raise RecipeError(what, fix="leave out the budget or the phases")
    phases = recipe.expand()
    if epochs < len(phases):
        what = f"{epochs} epoch(s) are too few for {len(phases)} phases"
        raise RecipeError(what, fix="allow more, or choose another strategy")
    if len(phases) == 1:
        return replace(recipe, epochs=epochs)
    early = len(phases) - 1
    share = phases[0].epochs / sum(phase.epochs for phase in phases)
    each = max(1, min(math.ceil(round(epochs * share, 6)), (epochs - 1) // early))
    return replace(recipe, probe_epochs=each, epochs=epochs - early * each)


SLACK = 1.1  # an estimate up to this factor above the budget still fits: estimates are no more accurate

_MOST = 1 << 20  # epochs


@dataclass(frozen=True, slots=True)
class FittedBudget:
    """A recipe fitted to a budget, and its cost."""

    recipe: Recipe  # with its epochs written out if there is a budget
    epochs: int  # in all phases
    steps: int  # optimizer steps in all phases
    seconds: float  # of training, estimated
    memory_bytes: int  # at the peak, estimated
    fault: RecipeError | None  # why it does not fit; None: it does


def fitted(plan: Plan, recipe: Recipe, budget: Budget | None) -> FittedBudget:
    """The recipe with the most epochs that fit into the budget, by the plan's estimates; unchanged without a budget.

    Phases keep their proportion. What precedes a phase's first epoch, such as caching features, is paid once; epochs
    of different phases may differ much in cost. Raises RecipeError as `with_epochs`.
    """
    whole = sum(phase.epochs for phase in plan.phases)
    memory = plan.memory_bytes or 0
    if budget is None:
        return FittedBudget(recipe, whole, plan.steps, plan.seconds or 0.0, memory, None)
    least = len(recipe.expand())
    takes, counts = partial(_seconds, plan, recipe), partial(_steps, plan, recipe)
    if budget.steps is not None:
        most, steps = _most(counts, least, budget.steps), budget.steps
        epochs = min((most, most + 1), key=lambda epochs: abs(counts(epochs) - steps))  # the nearest
        over = counts(least) > budget.steps * SLACK
    else:
        allowed = budget.seconds or 0.0
        epochs = _most(takes, least, allowed) if takes(least) else max(least, whole)
        over = takes(epochs) > allowed * SLACK
    fault = None
    if over:
        cost = f"{counts(epochs)} steps" if budget.steps is not None else f"about {takes(epochs):.0f} s"
        fault = RecipeError(
            f"{plan.backbone} does not fit into {budget}",
            why=f"one epoch {f'of each of its {least} phase(s) ' if least > 1 else ''}takes {cost}",
            fix="allow more with --budget, or take fewer images with --limit or smaller ones with --image-size",
        )
    return FittedBudget(with_epochs(recipe, epochs), epochs, counts(epochs), takes(epochs), memory, fault)


def _steps(plan: Plan, recipe: Recipe, epochs: int) -> int:
    """Optimizer steps of the plan's phases with this total of epochs."""
    shared = _shared(recipe, epochs)
    return sum(shared.get(phase.name, 0) * phase.steps_per_epoch for phase in plan.phases)


def _seconds(plan: Plan, recipe: Recipe, epochs: int) -> float:
    """Estimated seconds of the plan's phases with this total of epochs."""
    shared = _shared(recipe, epochs)
    # If phases were not timed, only the mean epoch is known.
    mean = (Pace((plan.seconds or 0.0) / sum(phase.epochs for phase in plan.phases)),)
    phases = [phase for phase in plan.phases if phase.name in shared]
    return sum(min(pace.seconds(shared[phase.name]) for pace in phase.paces or mean) for phase in phases)


def _shared(recipe: Recipe, epochs: int) -> dict[str, int]:
    return {phase.name: phase.epochs for phase in with_epochs(recipe, epochs).expand()}


def _most(takes: Callable[[int], float], least: int, allowed: float) -> int:
    """The most epochs that fit, but at least `least`."""
    allowed *= 1 + 1e-9  # rounding must not exclude an exact fit
    step = 1
    while step < _MOST and takes(least + step) <= allowed:
        step *= 2
    low, high = least, least + step  # the first fits, if any do; the second does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) <= allowed else (low, middle)
    # More epochs may cost less if they are split otherwise among phases.
    return max([low, *(more for more in range(low + 1, low + 2 * least) if takes(more) <= allowed)])
