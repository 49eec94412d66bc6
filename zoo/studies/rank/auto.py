"""Automatic choice of the backbone: rank them, and take the best that fits into the budget."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.errors import RecipeError, TrainingError
from zoo.events import Listener, Note
from zoo.recipes.budget import Budget, FittedBudget, fitted
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import prepare
from zoo.studies.backbone_list import Entrant
from zoo.studies.rank.rank import IMAGES, NO_TIME, ranked
from zoo.training import machine

AUTO = "auto"  # the name of the backbone to choose
_SHARE = 0.5  # of the budget for ranking; the rest is for training


def cut(backbone: str, dataset: str, recipe: Recipe, budget: Budget | None, emit: Listener) -> FittedBudget:
    """One backbone's recipe within a budget; raises RecipeError if it does not fit, or there are several processes."""
    _require_one_process()
    cut = fitted(prepare(backbone, dataset, recipe, emit).plan, recipe, budget)
    if cut.fault is not None:
        raise cut.fault
    emit(Note(f"{cut.epochs} epochs fit into {budget}: about {cut.seconds:.0f} s of training, {cut.steps} steps"))
    return cut


def _require_one_process() -> None:
    count = machine.process_count()
    if count > 1:
        raise RecipeError(
            f"a backbone or its epochs cannot be chosen by {count} processes",
            why="each measures its own times, so they could choose differently",
            fix="choose in one with `zoo rank --budget …`, then name the backbone and --epochs",
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The backbone to adapt, with its recipe within the rest of the budget."""

    entrant: Entrant
    recipe: Recipe
    reason: str
    record: dict[str, Any]  # for run.json


def choose(dataset: str, names: Sequence[str], recipe: Recipe, budget: Budget | None, emit: Listener) -> Choice:
    """Rank backbones and take the first whose adaptation fits into the budget that ranking left.

    Raises TrainingError if none does, RecipeError if there are several processes.
    """
    _require_one_process()
    share = None if budget is None or budget.seconds is None else _SHARE * budget.seconds
    ranking = ranked(dataset, names, recipe, images=IMAGES, budget=budget, emit=emit, within=share)
    left = budget
    if budget is not None and budget.seconds is not None:
        if ranking.seconds >= budget.seconds:
            raise TrainingError(
                f"ranking alone took {ranking.seconds:.0f} s of {budget}",
                fix="allow more with --budget, or name few with --among",
            )
        left = Budget(seconds=budget.seconds - ranking.seconds)
    passed: list[str] = []
    for number, (one, place) in enumerate(zip(ranking.judged, ranking.places, strict=True), start=1):
        within = fitted(one.plan, replace(recipe, weights=one.entrant.weights), left)
        if within.fault is not None:
            passed.append(f"{one.entrant.short} would be better but does not fit: {within.fault.why}")
            continue
        reasons = [
            f"{one.entrant.short} ranks {number} of {len(ranking.judged)}: a linear probe on its frozen features is "
            f"right on {one.probe.accuracy:.1%} of {ranking.images} images, and it is the best with probability "
            f"{place.best:.2f}",
            *passed,
        ]
        if unseen := sum(each.why == NO_TIME for each in ranking.left_out):
            reasons.append(f"{unseen} were not ranked, for lack of time")
        reason = "; ".join(reasons)
        emit(Note(reason))
        record = {"budget": str(budget) if budget else None, "reason": reason, **ranking.record()}
        return Choice(one.entrant, within.recipe, reason, record)
    names_tried = " ".join(f"--among {shlex.quote(str(one.entrant))}" for one in ranking.judged)
    raise TrainingError(
        f"no backbone can be adapted within {budget}",
        why="; ".join(passed),
        fix=f"allow more with --budget, or name smaller ones than {names_tried}",
    )
