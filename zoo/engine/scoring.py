"""What outputs are worth, whatever it is that images answer: numbers to choose an epoch by, and the whole result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zoo.engine.evaluation import TEMPERATURES, Outputs, measure
from zoo.engine.loop import Scores
from zoo.engine.multilabel import choose_thresholds, known_loss, mean_ap, measure_labels
from zoo.tasks import Task

HALF = 0.5  # the threshold of a label for which none was chosen


def scores_of(tasks: Sequence[Task]) -> Scores:
    """What choosing an epoch goes by, as a function of the outputs: "loss" in nats, and more by name."""
    return _label_scores if tasks else Outputs.scores


def _label_scores(outputs: Outputs) -> dict[str, float]:
    """For several labels: the mean average precision, and the refinement error as `Outputs.scores` has it."""
    logits, truth = outputs.logits, outputs.labels
    area = mean_ap(logits, truth)
    return {
        "map": area if area == area else 0.0,  # no image that chooses has any label
        "loss": float(known_loss(logits, truth)),
        "refinement": min(float(known_loss(logits / each, truth)) for each in TEMPERATURES),
    }


def with_thresholds(tasks: Sequence[Task], outputs: Outputs) -> tuple[Task, ...]:
    """The tasks with the thresholds that suit what the model says about the choosing images."""
    return tuple(replace(task, thresholds=choose_thresholds(outputs.logits, outputs.labels)) for task in tasks)


def measured(outputs: Outputs, tasks: Sequence[Task], classes: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """Everything that a result says about a set of images: see `measure` and `measure_labels`."""
    if not tasks:
        return measure(outputs, classes, ids)
    thresholds = tasks[0].thresholds or [HALF] * len(classes)
    return {
        "problem": tasks[0].kind,
        **measure_labels(outputs.logits, outputs.labels, classes, thresholds, ids),
    }
