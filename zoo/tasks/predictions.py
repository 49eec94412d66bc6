"""What a model's outputs say about images, in words and numbers: a class, labels, a step, a quantity, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.tasks.ordinal import step_of, step_probabilities
from zoo.tasks.schema import Task, spans
from zoo.tasks.scoring import HALF

Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to one question about one image; what does not belong to its kind is None."""

    label: str | None = None  # most probable class; or the step
    probability: float | None = None  # of the class or step
    top: Shares = ()  # most probable classes, labels or steps, best first
    labels: Shares | None = None  # those above their thresholds
    value: float | None = None  # a quantity

    def record(self) -> dict[str, Any]:
        """The answer as plain values."""
        if self.value is not None:
            return {"value": self.value}
        top = _plain(self.top)
        if self.labels is not None:
            return {"labels": _plain(self.labels), "top": top}
        return {"label": self.label, "probability": self.probability, "top": top}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image."""

    path: str
    label: str | None  # most probable class, or the step; None where there is none, or the image could not be read
    probability: float | None  # the same
    top: Shares = ()  # most probable classes, labels or steps, best first
    error: str | None = None
    labels: Shares | None = None  # those above their thresholds, where a model gives labels
    value: float | None = None  # where a model gives a quantity
    tasks: Mapping[str, Answer] | None = None  # where a model answers several questions, by name

    def record(self) -> dict[str, Any]:
        """The prediction as plain values, the form of `zoo predict --json`."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        if self.tasks is not None:
            return {"path": self.path, "tasks": {name: answer.record() for name, answer in self.tasks.items()}}
        answer = Answer(self.label, self.probability, self.top, self.labels, self.value)
        return {"path": self.path, **answer.record()}


def predictions(
    paths: Sequence[str], logits: torch.Tensor, classes: Sequence[str], tasks: Sequence[Task], top: int
) -> list[Prediction]:
    """What outputs say of each image.

    Args:
        paths: Of the images.
        logits: (N, outputs), of a saved model: a quantity in its own unit.
        classes: Names of the classes, where there are no tasks.
        tasks: What the model answers; none: of which class an image is.
        top: How many classes or labels to give.
    """
    asked = tasks or (Task("class", "single-label", tuple(classes)),)
    columns = [_answers(logits[:, span.outputs], span.task, top) for span in spans(asked)]
    if len(asked) > 1:
        names = [task.name for task in asked]
        return [Prediction(path, None, None, tasks=dict(zip(names, row, strict=True)))
                for path, *row in zip(paths, *columns, strict=True)]  # fmt: skip
    return [Prediction(path, answer.label, answer.probability, answer.top, None, answer.labels, answer.value)
            for path, answer in zip(paths, columns[0], strict=True)]  # fmt: skip


def _answers(logits: torch.Tensor, task: Task, top: int) -> list[Answer]:
    """What a task's outputs say of each image."""
    if task.kind == "regression":
        return [Answer(value=float(value)) for value in logits[:, 0]]
    if task.kind == "multi-label":
        return [_labelled(row, task, top) for row in logits.sigmoid()]
    if task.kind == "single-label":
        return [Answer(*ranked[0], top=ranked) for ranked in (_ranked(row, task, top) for row in logits.softmax(1))]
    steps, found = step_of(logits).tolist(), []
    for step, row in zip(steps, step_probabilities(logits), strict=True):
        found.append(Answer(task.classes[step], float(row[step]), top=_ranked(row, task, top)))
    return found


def _labelled(shares: torch.Tensor, task: Task, top: int) -> Answer:
    thresholds = task.thresholds or [HALF] * len(task.classes)
    pairs = zip(task.classes, shares.tolist(), thresholds, strict=True)
    over = [(name, share) for name, share, least in pairs if share >= least]
    return Answer(top=_ranked(shares, task, top), labels=tuple(sorted(over, key=lambda pair: -pair[1])))


def _ranked(shares: torch.Tensor, task: Task, top: int) -> Shares:
    best = shares.topk(max(1, min(top, len(shares))))
    return tuple((task.classes[place], share) for share, place in
                 zip(best.values.tolist(), best.indices.tolist(), strict=True))  # fmt: skip


def _plain(pairs: Shares) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in pairs]
