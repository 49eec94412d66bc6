"""Predictions: a model's outputs as classes, labels, levels or values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.tasks import kinds
from zoo.tasks.kind import Shares, TaskPrediction
from zoo.tasks.schema import Task, spans


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's prediction for one image."""

    path: str
    label: str | None  # most probable class, or the level; None for other tasks and for unreadable images
    probability: float | None  # of the class or level
    top: Shares = ()  # most probable classes, labels or levels, best first
    error: str | None = None  # why the image could not be read
    labels: Shares | None = None  # of a multi-label model: those above their thresholds
    value: float | None = None  # of a regression model
    tasks: Mapping[str, TaskPrediction] | None = None  # of a model of several tasks, by name

    def record(self) -> dict[str, Any]:
        """The prediction as plain values, the form of `zoo predict --json`."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        if self.tasks is not None:
            return {"path": self.path, "tasks": {name: task.record() for name, task in self.tasks.items()}}
        only = TaskPrediction(self.label, self.probability, self.top, self.labels, self.value)
        return {"path": self.path, **only.record()}


def predictions(paths: Sequence[str], logits: torch.Tensor, tasks: Sequence[Task], top: int) -> list[Prediction]:
    """Predictions with the `top` most probable classes, from logits (N, outputs) of a saved model."""
    columns = [kinds.of(span.task).predict(span.task, logits[:, span.outputs], top) for span in spans(tasks)]
    if len(tasks) > 1:
        names = [task.name for task in tasks]
        return [Prediction(path, None, None, tasks=dict(zip(names, row, strict=True)))
                for path, *row in zip(paths, *columns, strict=True)]  # fmt: skip
    return [Prediction(path, only.label, only.probability, only.top, None, only.labels, only.value)
            for path, only in zip(paths, columns[0], strict=True)]  # fmt: skip
