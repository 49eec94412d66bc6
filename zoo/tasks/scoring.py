"""Scoring of outputs: the scores that choose an epoch, and the full result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoo.errors import DataError
from zoo.tasks import kinds
from zoo.tasks.kind import MISTAKES
from zoo.tasks.outputs import TEMPERATURES, Outputs, Scores
from zoo.tasks.schema import SEVERAL, Span, Task, headline, is_plain, scored_alone, spans


def scores_of(tasks: Sequence[Task]) -> Scores:
    """The function from outputs to the scores that can choose an epoch: "loss" in nats, and others by name."""
    return lambda outputs: _alone(outputs, tasks[0]) if scored_alone(tasks) else _together(outputs, tasks)


def _alone(outputs: Outputs, task: Task) -> dict[str, float]:
    """The headline measure, the mean loss, and the refinement error.

    That is the loss at its best temperature (Berta et al. 2025, "Rethinking Early Stopping: Refine, Then Calibrate"):
    how well the network separates classes, whatever its confidence.
    """
    kind, logits, truth = kinds.of(task), outputs.logits, _columns(outputs)
    return {
        task.facts.measures[0].key: kind.score(task, logits, truth),
        "loss": float(kind.nats(task, logits, truth)),
        "refinement": min(float(kind.nats(task, logits / each, truth)) for each in TEMPERATURES),
    }


def _together(outputs: Outputs, tasks: Sequence[Task]) -> dict[str, float]:
    """The sum of the tasks' losses, the score of each, at least 0, and their mean."""
    scores: dict[str, float] = {}
    loss = 0.0
    for span in spans(tasks):
        logits, truth, _ = _with_targets(outputs, span)
        if len(truth):
            kind = kinds.of(span.task)
            scores[f"score of {span.task.name}"] = max(0.0, kind.score(span.task, logits, truth))
            loss += float(kind.nats(span.task, logits, truth))
    return {"score": float(np.mean([*scores.values()])) if scores else 0.0, "loss": loss, **scores}


def calibrated(tasks: Sequence[Task], outputs: Outputs) -> tuple[Task, ...]:
    """The tasks with the label thresholds that suit the outputs for validation images."""
    return tuple(kinds.of(span.task).calibrate(span.task, *_with_targets(outputs, span)[:2]) for span in spans(tasks))


def measured(outputs: Outputs, tasks: Sequence[Task], ids: Sequence[str]) -> dict[str, Any]:
    """The result of a saved model's outputs for images named `ids`, as plain values.

    See `Kind.measure` of each kind. For several tasks: the result of each (`tasks`), the mean of their headlines
    (`score`, each at least 0), and the sum of the losses. A task without targets is left out; raises DataError if no
    task has any.
    """
    found = {}
    for span in spans(tasks):
        logits, truth, rows = _with_targets(outputs, span)
        if len(rows):
            result = kinds.of(span.task).measure(span.task, logits, truth, [ids[row] for row in rows])
            found[span.task.name] = result if is_plain(tasks) else {"problem": span.task.kind, **result}
    if not found:
        raise DataError(
            f"none of the {len(ids):,} images to measure on has a target for {', '.join(task.name for task in tasks)}",
            why="their cells are empty, so there is nothing to compare predictions with",
            fix="fill some of them in, or name images that have targets",
        )
    if len(tasks) == 1:
        return found[tasks[0].name]
    return {
        "problem": SEVERAL,
        "score": float(np.mean([max(0.0, headline(each)[1] or 0.0) for each in found.values()])),
        "loss": float(sum(each["loss"] for each in found.values())),
        "n": len(outputs.logits),
        "tasks": found,
        "mistakes": _mistakes(found),
    }


def _mistakes(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The first mistakes of each task, with its name as a prefix."""
    most = max(1, MISTAKES // len(found))
    return [{**row, "label": f"{name}: {row['label']}", "predicted": f"{name}: {row['predicted']}"}
            for name, each in found.items() for row in each["mistakes"][:most]]  # fmt: skip


def _columns(outputs: Outputs) -> torch.Tensor:
    """The targets, (N, columns), from classes (N,) too."""
    return outputs.labels if outputs.labels.ndim > 1 else outputs.labels[:, None]


def _with_targets(outputs: Outputs, span: Span) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """A task's outputs and targets over the images that have one, and the positions of these images."""
    truth = _columns(outputs)[:, span.columns]
    rows = truth.isfinite().any(1)
    return outputs.logits[rows][:, span.outputs], truth[rows], rows.nonzero()[:, 0].tolist()
