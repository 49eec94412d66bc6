"""Kind: the interface of a kind of task (single-label, multi-label, ordinal, regression).

Each kind is one file in this folder, listed in `kinds`; no other room asks for a task's kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.base.text import percent
from zoo.tasks.schema import NAN, Facts, Target, Task, in_order

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Shares = tuple[tuple[str, float], ...]

MISTAKES = 24  # of the most confident ones, listed in a result


class Unfit(ValueError):
    """A column does not hold what a kind needs; without a fix the user must name another column."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, for a kind to read."""

    name: str  # of the task
    place: tuple[str, str]  # names of file and column, for messages
    texts: Sequence[str | None]  # each cell as text; None: empty
    labels: Sequence[Sequence[str] | None]  # each cell as labels
    trained: Sequence[bool]  # whether each row is a training image
    several: bool = False  # whether a cell seems to hold several labels
    levels: tuple[str, ...] = ()  # as the user wrote them, from low to high
    known: Task | None = None  # the task of a model that is being evaluated

    def values(self) -> set[str]:
        """The values of training images; raises Unfit if there are none and no task is known."""
        found = {text for text, trained in zip(self.texts, self.trained, strict=True) if trained and text is not None}
        if not found and self.known is None:
            raise Unfit("no training image has a value")
        return found


@dataclass(frozen=True, slots=True)
class LossOptions:
    """A recipe's loss options; each kind uses its own."""

    name: str = ""  # of a loss; a kind without it uses its default
    smoothing: float = 0.0  # share of each target that is spread over the classes
    label_smoothing: float = 0.0  # the same for multi-label tasks


USUAL = LossOptions()


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """A model's prediction for one task and image; fields that its kind does not have are None."""

    label: str | None = None  # most probable class, or the level
    probability: float | None = None  # of the class or level
    top: Shares = ()  # most probable classes, labels or levels, best first
    labels: Shares | None = None  # those above their thresholds
    value: float | None = None  # of a regression task

    def record(self) -> dict[str, Any]:
        """The prediction as plain values."""
        if self.value is not None:
            return {"value": self.value}
        top = _plain(self.top)
        if self.labels is not None:
            return {"labels": _plain(self.labels), "top": top}
        return {"label": self.label, "probability": self.probability, "top": top}


class Kind:
    """Everything that differs between kinds of task.

    Targets are (N, columns), NaN if unknown; logits (N, outputs) of the task alone.
    """

    facts: Facts
    purpose: str  # of a model, after "a backbone, adapted"; with placeholders `{classes}` and `{name}`
    usage: str  # a line of Python for the model card: prints the prediction of `mine`, a `task`'s outputs, by `names`
    shown: tuple[tuple[str, str, str], ...]  # further measures in `zoo eval`: name, key, and a format or "%"

    # Data

    def claims(self, column: Column) -> str | None:
        """A note, perhaps empty, if a column without a named kind looks like this one; else None."""
        return None

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """The column's task and each row's target, here one class; raises Unfit if the column does not fit the kind."""
        found = column.values()
        classes = column.known.classes if column.known else self.in_order(column, found)
        if len(classes) < 2:
            raise Unfit(f"there is one class only: {', '.join(classes)}", "a task needs two to tell apart")
        refuse_unknown({text for text in column.texts if text is not None}, classes, "class")
        position = {name: float(place) for place, name in enumerate(classes)}
        task = Task(column.name, self.facts.name, tuple(classes))
        return task, [(NAN if text is None else position[text],) for text in column.texts]

    def in_order(self, column: Column, found: set[str]) -> tuple[str, ...]:
        """The classes, from the values of training images."""
        return in_order(found)

    def strata(self, task: Task, targets: Values) -> Flags:
        """Membership in strata, (N, strata), whose proportions every part of a stratified split keeps."""
        flags: Flags = targets == np.arange(len(task.classes))
        return flags

    def counts(self, task: Task, targets: Values) -> list[int]:
        """The number of positive images of each output."""
        found: list[int] = self.strata(task, targets).sum(0).tolist()
        return found

    def fitted(self, task: Task, targets: Values) -> Task:
        """The task with the statistics of training targets that its loss needs."""
        return task

    def lacks(self, task: Task, targets: Values) -> tuple[str, str] | None:
        """What is missing to measure anything on these images, and why it is needed; None: nothing."""
        return None

    # Training

    def mask(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """Which terms of the loss the images have targets for, (N, terms)."""
        return targets.isfinite()

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """The mean loss over the terms of `mask`, nats; 0 if there are none."""
        raise NotImplementedError

    def nats(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The default loss, by which epochs are chosen, of images with targets."""
        return self.loss(task, logits, targets, USUAL)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """The headline measure, from outputs as in training."""
        raise NotImplementedError

    # Results

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """All measures as plain values, `loss`, `n` and `mistakes` among them.

        Args:
            task: The task.
            logits: Of a saved model: for regression in the target's unit.
            targets: Known for every image.
            ids: Name of each image.
        """
        raise NotImplementedError

    def calibrate(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> Task:
        """The task with what validation images choose after training; called for all tasks if one has thresholds."""
        return task

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """A saved model's prediction for each image, with the `top` most probable classes."""
        raise NotImplementedError

    def edit_head(self, task: Task, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Put the target's unit into the task's rows of the head, in place; only called for `facts.scaled`."""

    # Words

    def per_class(self, images: int, cases: Sequence[int]) -> list[int]:
        """Images of each class, from the number of images and the positive ones of each output."""
        return list(cases)

    def table(self, result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table in `zoo eval`, which is left out without rows."""
        rows = [[entry["name"], str(entry["n"]), percent(entry["accuracy"])] for entry in result.get("classes") or ()]
        return [self.facts.noun, "images", "accuracy"], rows


def refuse_unknown(found: set[str], known: Sequence[str], noun: str) -> None:
    """Raise Unfit for classes that training did not see."""
    if unknown := sorted(found - set(known)):
        raise Unfit(
            f"{len(unknown)} {noun}(es) that training does not know: {', '.join(unknown[:10])}",
            f"rename or remove them, or add training images; known: {', '.join(list(known)[:10])}",
        )


def ranked(shares: torch.Tensor, task: Task, top: int) -> Shares:
    """The most probable classes of an image with their probabilities, best first."""
    best = shares.topk(max(1, min(top, len(shares))))
    return tuple((task.classes[place], share) for share, place in
                 zip(best.values.tolist(), best.indices.tolist(), strict=True))  # fmt: skip


def mistake(name: str, label: str, predicted: str, probability: float | None) -> dict[str, Any]:
    """A row of a result's `mistakes`."""
    return {"id": name, "label": label, "predicted": predicted, "probability": probability}


def _plain(pairs: Shares) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in pairs]
