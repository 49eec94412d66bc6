"""How much an adaptation may take, in time or in steps, and a recipe's epochs cut to it."""

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
    """What training may take: exactly one of the two."""

    seconds: float | None = None  # of training, as estimated before it starts
    steps: int | None = None  # optimizer steps

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read what a person wrote: `90s`, `10m`, `1.5h`, `500steps`.

        Raises:
            RecipeError: It is neither a time nor a number of steps, or it is nothing.
        """
        if (seconds := parse_seconds(text)) or (steps := parse_steps(text)):
            return cls(seconds=seconds) if seconds else cls(steps=steps)
        raise RecipeError(
            f"a budget is a time or a number of steps, not {text!r}", fix="such as 90s, 10m, 2h, 500steps"
        )

    def __str__(self) -> str:
        """The budget as a person would write it."""
        return f"{self.steps}steps" if self.steps is not None else written(self.seconds or 0.0)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with so many epochs in all, shared out among its phases in their own proportion.

    Where it does not come out even, the earlier phases get more: their epochs are the cheaper ones.

    Raises:
        RecipeError: There are fewer epochs than phases, or the recipe gives its phases in full.
    """
    if recipe.phases:
        raise RecipeError(
            "a budget decides the epochs, and the phases of this recipe say them already",
            fix="leave out the budget or the phases",
        )
    phases = recipe.expand()
    if epochs < len(phases):
        raise RecipeError(
            f"{epochs} epoch(s) are too few for {len(phases)} phases", fix="allow more, or choose another strategy"
        )
    if len(phases) == 1:
        return replace(recipe, epochs=epochs)
    early = len(phases) - 1
    share = phases[0].epochs / sum(phase.epochs for phase in phases)
    each = max(1, min(math.ceil(round(epochs * share, 6)), (epochs - 1) // early))
    return replace(recipe, probe_epochs=each, epochs=epochs - early * each)


SLACK = 1.1  # an estimate this much above the budget still counts as within it: it is no better known than that

_MOST = 1 << 20  # epochs; nobody waits for more


@dataclass(frozen=True, slots=True)
class FittedBudget:
    """A recipe cut to a budget, and what it will take."""

    recipe: Recipe  # with its epochs written out, where there is a budget
    epochs: int  # in all phases
    steps: int  # optimizer steps in all phases
    seconds: float  # of training, estimated
    memory_bytes: int  # at the peak, estimated
    fault: RecipeError | None  # why it does not fit into the budget; None: it does


def fitted(plan: Plan, recipe: Recipe, budget: Budget | None) -> FittedBudget:
    """Cut a recipe to a budget; without one it stays as it is.

    The epochs are the most whose phases fit, each phase's share in them being kept. What comes before a phase's first
    epoch, such as activations, is paid once; and an epoch of one phase may take many times that of another.

    Args:
        plan: What the recipe came to, with its estimate.
        recipe: The choices.
        budget: What it may take.

    Raises:
        RecipeError: The recipe gives its phases in full, which leaves nothing to decide.
    """
    whole = sum(phase.epochs for phase in plan.phases)
    memory = plan.memory_bytes or 0
    if budget is None:
        return FittedBudget(recipe, whole, plan.steps, plan.seconds or 0.0, memory, None)
    least = len(recipe.expand())
    takes, counts = partial(_seconds, plan, recipe), partial(_steps, plan, recipe)
    if budget.steps is not None:
        epochs = _nearest(counts, least, budget.steps)
        over = counts(least) > budget.steps * SLACK
    else:
        allowed = budget.seconds or 0.0
        epochs = _most(takes, least, allowed) if takes(least) else max(least, whole)
        over = takes(epochs) > allowed * SLACK
    fault = None
    if over:
        what = f"{counts(epochs)} steps" if budget.steps is not None else f"about {takes(epochs):.0f} s"
        fault = RecipeError(
            f"{plan.backbone} does not fit into {budget}",
            why=f"one epoch of each of its {least} phase(s) takes {what}" if least > 1 else f"one epoch takes {what}",
            fix="allow more with --budget, or take fewer images with --limit or smaller ones with --image-size",
        )
    return FittedBudget(with_epochs(recipe, epochs), epochs, counts(epochs), takes(epochs), memory, fault)


def _steps(plan: Plan, recipe: Recipe, epochs: int) -> int:
    """Optimizer steps of the plan's phases with so many epochs shared out among them."""
    shared = _shared(recipe, epochs)
    return sum(shared.get(phase.name, 0) * phase.steps_per_epoch for phase in plan.phases)


def _seconds(plan: Plan, recipe: Recipe, epochs: int) -> float:
    """What the plan's phases take with so many epochs shared out among them."""
    shared = _shared(recipe, epochs)
    whole = sum(phase.epochs for phase in plan.phases)
    alike = (Pace((plan.seconds or 0.0) / whole),)  # all that is known of a plan whose phases were not timed
    return sum(
        min(pace.seconds(shared[phase.name]) for pace in phase.paces or alike)
        for phase in plan.phases
        if phase.name in shared
    )


def _shared(recipe: Recipe, epochs: int) -> dict[str, int]:
    return {phase.name: phase.epochs for phase in with_epochs(recipe, epochs).expand()}


def _nearest(counts: Callable[[int], int], least: int, asked: int) -> int:
    """The epochs whose steps are nearest to so many."""
    most = _most(counts, least, asked)
    return min((most, most + 1), key=lambda epochs: abs(counts(epochs) - asked))


def _most(takes: Callable[[int], float], least: int, allowed: float) -> int:
    """The most epochs that fit, or the least that there can be."""
    allowed *= 1 + 1e-9  # an estimate that is to be met exactly
    step = 1
    while step < _MOST and takes(least + step) <= allowed:
        step *= 2
    low, high = least, least + step  # the first fits, if any do; the second does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) <= allowed else (low, middle)
    # One more epoch may be cheaper, where it is shared out otherwise.
    return max([low, *(more for more in range(low + 1, low + 2 * least) if takes(more) <= allowed)])
