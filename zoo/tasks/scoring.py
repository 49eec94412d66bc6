"""What outputs are worth, whatever it is that images answer: numbers to choose an epoch by, and the whole result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.errors import DataError
from zoo.tasks import single_label
from zoo.tasks.multilabel import choose_thresholds, known_loss, mean_ap, measure_labels
from zoo.tasks.ordinal import kappa, measure_steps, ordinal_loss, step_of
from zoo.tasks.outputs import TEMPERATURES, Outputs, Scores
from zoo.tasks.regression import measure_quantity, quantity_loss, r_squared
from zoo.tasks.schema import SEVERAL, Span, Task, headline, problem, spans
from zoo.tasks.single_label import MISTAKES, measure

HALF = 0.5  # the threshold of a label for which none was chosen


def scores_of(tasks: Sequence[Task]) -> Scores:
    """What choosing an epoch goes by, as a function of the outputs: "loss" in nats, and more by name."""
    if not tasks:
        return single_label.scores
    if problem(tasks) == "multi-label":
        return _label_scores
    return lambda outputs: _task_scores(outputs, tasks)


def _label_scores(outputs: Outputs) -> dict[str, float]:
    """For several labels: the mean average precision, and the refinement error as `single_label.scores` has it."""
    logits, truth = outputs.logits, outputs.labels
    area = mean_ap(logits, truth)
    return {
        "map": area if area == area else 0.0,  # no image that chooses has any label
        "loss": float(known_loss(logits, truth)),
        "refinement": min(float(known_loss(logits / each, truth)) for each in TEMPERATURES),
    }


def _task_scores(outputs: Outputs, tasks: Sequence[Task]) -> dict[str, float]:
    """For several tasks: the sum of their losses, the score of each (see `score`), and their mean."""
    found: dict[str, float] = {}
    loss = 0.0
    for span in spans(tasks):
        logits, truth, _ = _answered(outputs, span)
        if len(truth):
            mine = _SCORES[span.task.kind](logits, truth, span.task)
            found[span.task.name] = max(0.0, mine[0])
            loss += mine[1]
    mean = float(np.mean([*found.values()])) if found else 0.0
    return {"score": mean, "loss": loss, **{f"score of {name}": value for name, value in found.items()}}


def _classes(logits: torch.Tensor, truth: torch.Tensor, task: Task) -> tuple[float, float]:
    right = (logits.argmax(1) == truth[:, 0]).float().mean()
    return float(right), float(functional.cross_entropy(logits, truth[:, 0].long()))


def _labels(logits: torch.Tensor, truth: torch.Tensor, task: Task) -> tuple[float, float]:
    area = mean_ap(logits, truth)
    return area if area == area else 0.0, float(known_loss(logits, truth))


def _steps(logits: torch.Tensor, truth: torch.Tensor, task: Task) -> tuple[float, float]:
    agreement = kappa(step_of(logits).numpy(), truth[:, 0].long().numpy(), len(task.classes))
    return agreement, float(ordinal_loss(logits, truth[:, 0]))


def _quantity(logits: torch.Tensor, truth: torch.Tensor, task: Task) -> tuple[float, float]:
    guesses = logits[:, 0].double() * task.std + task.mean
    loss = quantity_loss(logits[:, 0], truth[:, 0], task.mean, task.std)
    return r_squared(guesses.numpy(), truth[:, 0].double().numpy()), float(loss)


# What a task is worth, at most 1, and its loss: from outputs as they are in training, (N, outputs), and true answers.
_SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor, Task], tuple[float, float]]] = {
    "single-label": _classes,
    "multi-label": _labels,
    "ordinal": _steps,
    "regression": _quantity,
}


def with_thresholds(tasks: Sequence[Task], outputs: Outputs) -> tuple[Task, ...]:
    """The tasks with the thresholds that suit what the model says about the choosing images, where they give labels."""
    return tuple(
        replace(span.task, thresholds=choose_thresholds(*_answered(outputs, span)[:2]))
        if span.task.kind == "multi-label" else span.task
        for span in spans(tasks)
    )  # fmt: skip


def measured(outputs: Outputs, tasks: Sequence[Task], classes: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """Everything that a result says about a set of images.

    Args:
        outputs: What a saved model said: of a quantity, in its own unit.
        tasks: What it answers; none: of which class an image is.
        classes: Names of the classes, where there are no tasks.
        ids: Name of each image.

    Returns:
        Plain values: see `measure`, `measure_labels`, `measure_steps` and `measure_quantity`; of several tasks `tasks`
        with each one's, the mean of what each is known by (`score`, at least 0 of each), and the sum of the losses. A
        task that no image answers is left out.

    Raises:
        DataError: No image answers any task: there is nothing to measure by.
    """
    if not tasks:
        return measure(outputs, classes, ids)
    found = {}
    for span in spans(tasks):
        logits, truth, rows = _answered(outputs, span)
        if len(rows):
            names = [ids[row] for row in rows]
            found[span.task.name] = {"problem": span.task.kind, **_measured(logits, truth, span.task, names)}
    if not found:
        raise DataError(
            f"none of the {len(ids):,} images to measure on has an answer to {', '.join(task.name for task in tasks)}",
            why="cells are empty there, so there is nothing to compare with what the model says",
            fix="fill some of them in, or name images that have answers",
        )
    if len(tasks) == 1:
        return found[tasks[0].name]
    worth = [max(0.0, headline(each)[1] or 0.0) for each in found.values()]
    return {
        "problem": SEVERAL,
        "score": float(np.mean(worth)),
        "loss": float(sum(each["loss"] for each in found.values())),
        "n": len(outputs.logits),
        "tasks": found,
        "mistakes": _mistakes(found),
    }


def _mistakes(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The first mistakes of each task, with its name before what is said."""
    most = max(1, MISTAKES // len(found))
    return [{**row, "label": f"{name}: {row['label']}", "predicted": f"{name}: {row['predicted']}"}
            for name, each in found.items() for row in each["mistakes"][:most]]  # fmt: skip


def _measured(logits: torch.Tensor, truth: torch.Tensor, task: Task, ids: Sequence[str]) -> dict[str, Any]:
    if task.kind == "single-label":
        return measure(Outputs(logits, truth[:, 0].long()), task.classes, ids)
    if task.kind == "multi-label":
        return measure_labels(logits, truth, task.classes, task.thresholds or [HALF] * len(task.classes), ids)
    if task.kind == "ordinal":
        return measure_steps(logits, truth[:, 0].long(), task.classes, ids, MISTAKES)
    return measure_quantity(logits[:, 0], truth[:, 0], task.mean, task.std, ids, MISTAKES)


def _answered(outputs: Outputs, span: Span) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """A task's outputs and true answers over the images that answer it, and the positions of these."""
    truth = outputs.labels[:, span.columns]
    rows = truth.isfinite().any(1)
    return outputs.logits[rows][:, span.outputs], truth[rows], rows.nonzero()[:, 0].tolist()
