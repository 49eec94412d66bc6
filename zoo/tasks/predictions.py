"""What a model's outputs say about images, in words and numbers: a class, labels, a step, a quantity, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.tasks import kinds
from zoo.tasks.kind import TaskPrediction, Shares
from zoo.tasks.schema import Task, spans


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
    tasks: Mapping[str, TaskPrediction] | None = None  # where a model answers several questions, by name

    def record(self) -> dict[str, Any]:
        """The prediction as plain values, the form of `zoo predict --json`."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        if self.tasks is not None:
            return {"path": self.path, "tasks": {name: answer.record() for name, answer in self.tasks.items()}}
        answer = TaskPrediction(self.label, self.probability, self.top, self.labels, self.value)
        return {"path": self.path, **answer.record()}


def predictions(paths: Sequence[str], logits: torch.Tensor, tasks: Sequence[Task], top: int) -> list[Prediction]:
    """What outputs say of each image.

    Args:
        paths: Of the images.
        logits: (N, outputs), of a saved model: a quantity in its own unit.
        tasks: What the model answers.
        top: How many classes or labels to give.
    """
    columns = [kinds.of(span.task).predict(span.task, logits[:, span.outputs], top) for span in spans(tasks)]
    if len(tasks) > 1:
        names = [task.name for task in tasks]
        return [Prediction(path, None, None, tasks=dict(zip(names, row, strict=True)))
                for path, *row in zip(paths, *columns, strict=True)]  # fmt: skip
    return [Prediction(path, answer.label, answer.probability, answer.top, None, answer.labels, answer.value)
            for path, answer in zip(paths, columns[0], strict=True)]  # fmt: skip
