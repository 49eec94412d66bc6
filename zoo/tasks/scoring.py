"""Scores of outputs: numbers to choose an epoch by, and the whole result, whatever images answer."""

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
    """What choosing an epoch goes by, as a function of the outputs: "loss" in nats, and more by name."""
    return lambda outputs: _alone(outputs, tasks[0]) if scored_alone(tasks) else _together(outputs, tasks)


def _alone(outputs: Outputs, task: Task) -> dict[str, float]:
    """What the task is known by, the mean loss, and the refinement error.

    That is the loss at the temperature at which it is least (Berta et al. 2025, "Rethinking Early Stopping: Refine,
    Then Calibrate"): how well classes are told apart, however sure of itself the network is.
    """
    kind, logits, truth = kinds.of(task), outputs.logits, _columns(outputs)
    return {
        task.facts.measures[0].key: kind.score(task, logits, truth),
        "loss": float(kind.nats(task, logits, truth)),
        "refinement": min(float(kind.nats(task, logits / each, truth)) for each in TEMPERATURES),
    }


def _together(outputs: Outputs, tasks: Sequence[Task]) -> dict[str, float]:
    """The sum of the tasks' losses, the score of each, at least 0, and their mean."""
    found: dict[str, float] = {}
    loss = 0.0
    for span in spans(tasks):
        logits, truth, _ = _answered(outputs, span)
        if len(truth):
            kind = kinds.of(span.task)
            found[span.task.name] = max(0.0, kind.score(span.task, logits, truth))
            loss += float(kind.nats(span.task, logits, truth))
    mean = float(np.mean([*found.values()])) if found else 0.0
    return {"score": mean, "loss": loss, **{f"score of {name}": value for name, value in found.items()}}


def calibrated(tasks: Sequence[Task], outputs: Outputs) -> tuple[Task, ...]:
    """The tasks with what suits what the model says about the validation images: the thresholds of labels."""
    return tuple(kinds.of(span.task).calibrate(span.task, *_answered(outputs, span)[:2]) for span in spans(tasks))


def measured(outputs: Outputs, tasks: Sequence[Task], ids: Sequence[str]) -> dict[str, Any]:
    """Everything that a result says about a set of images.

    Args:
        outputs: What a saved model said: of a quantity, in its own unit.
        tasks: What it answers.
        ids: Name of each image.

    Returns:
        Plain values: see `Kind.measure` of each kind; of several tasks `tasks` with each one's, the mean of what each
        is known by (`score`, at least 0 of each), and the sum of the losses. A task that no image answers is left out.

    Raises:
        DataError: No image answers any task: there is nothing to measure by.
    """
    found = {}
    for span in spans(tasks):
        logits, truth, rows = _answered(outputs, span)
        if len(rows):
            result = kinds.of(span.task).measure(span.task, logits, truth, [ids[row] for row in rows])
            found[span.task.name] = result if is_plain(tasks) else {"problem": span.task.kind, **result}
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


def _columns(outputs: Outputs) -> torch.Tensor:
    """The true answers, (N, columns); classes of images that have nothing else come as (N,)."""
    return outputs.labels if outputs.labels.ndim > 1 else outputs.labels[:, None]


def _answered(outputs: Outputs, span: Span) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """A task's outputs and true answers over the images that answer it, and the positions of these."""
    truth = _columns(outputs)[:, span.columns]
    rows = truth.isfinite().any(1)
    return outputs.logits[rows][:, span.outputs], truth[rows], rows.nonzero()[:, 0].tolist()
