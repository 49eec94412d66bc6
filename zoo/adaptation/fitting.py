"""How many epochs of a recipe fit into a budget, from the plan's estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.budget import Budget, with_epochs
from zoo.errors import RecipeError
from zoo.planning import Plan
from zoo.recipe import Recipe

SLACK = 1.1  # an estimate this much above the budget still counts as within it: it is no better known than that


@dataclass(frozen=True, slots=True)
class Fitted:
    """A recipe cut to a budget, and what it will take."""

    recipe: Recipe  # with its epochs written out, where there is a budget
    epochs: int  # in all phases
    steps: int  # optimizer steps in all phases
    seconds: float  # of training, estimated
    memory_bytes: int  # at the peak, estimated
    fault: RecipeError | None  # why it does not fit into the budget; None: it does


def fitted(plan: Plan, recipe: Recipe, budget: Budget | None) -> Fitted:
    """Cut a recipe to a budget; without one it stays as it is.

    The estimate is taken to grow with the epochs, each phase's share in them being kept.

    Args:
        plan: What the recipe came to, with its estimate.
        recipe: The choices.
        budget: What it may take.

    Raises:
        RecipeError: The recipe gives its phases in full, which leaves nothing to decide.
    """
    whole = sum(phase.epochs for phase in plan.phases)
    each = plan.phases[0].steps_per_epoch
    seconds, memory = plan.seconds or 0.0, plan.memory_bytes or 0
    if budget is None:
        return Fitted(recipe, whole, plan.steps, seconds, memory, None)
    least = len(recipe.expand())
    if budget.steps is not None:
        epochs = max(least, round(budget.steps / each))
        over = least * each > budget.steps * SLACK
    else:
        allowed = budget.seconds or 0.0
        epochs = max(least, math.floor(whole * allowed / seconds) if seconds else whole)
        over = seconds * epochs / whole > allowed * SLACK
    takes = seconds * epochs / whole
    fault = None
    if over:
        what = f"{epochs * each} steps" if budget.steps is not None else f"about {takes:.0f} s"
        fault = RecipeError(
            f"{plan.backbone} does not fit into {budget}",
            why=f"one epoch of each of its {least} phase(s) takes {what}" if least > 1 else f"one epoch takes {what}",
            fix="allow more with --budget, or take fewer images with --limit or smaller ones with --image-size",
        )
    return Fitted(with_epochs(recipe, epochs), epochs, epochs * each, takes, memory, fault)
