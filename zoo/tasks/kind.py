"""A kind of task: everything that differs between single-label, multi-label, ordinal and regression tasks.

Each kind is one file beside this one; nothing outside this room asks of which kind a task is. See `kinds` for the list.
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

MISTAKES = 24  # most confident ones, kept for the report


class Unfit(ValueError):
    """A column does not hold what a kind asks for.

    Args:
        why: What is wrong with it.
        fix: What to do about it; empty: name another column.
    """

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, for a kind to read."""

    name: str  # of the task
    place: tuple[str, str]  # file and column, for a message
    texts: Sequence[str | None]  # what is written in each row; None: nothing
    labels: Sequence[Sequence[str] | None]  # the same cell by cell as labels, of which one can hold several
    trained: Sequence[bool]  # rows whose images are trained on
    several: bool = False  # whether some cell looks as if it held several labels
    levels: tuple[str, ...] = ()  # as the user wrote them, from low to high
    known: Task | None = None  # the task of a model that is scored

    def values(self) -> set[str]:
        """What is written in the rows that are trained on.

        Raises:
            Unfit: Nothing is, and nothing is known from elsewhere.
        """
        found = {text for text, fits in zip(self.texts, self.trained, strict=True) if fits and text is not None}
        if not found and self.known is None:
            raise Unfit("no training image has a value")
        return found


@dataclass(frozen=True, slots=True)
class LossOptions:
    """A recipe's choices about losses; a kind takes its own."""

    name: str = ""  # of a loss; where it is none of the kind's, that takes its usual one
    smoothing: float = 0.0  # share of each target that is spread over the classes
    label_smoothing: float = 0.0  # the same where an image may have several


USUAL = LossOptions()


@dataclass(frozen=True, slots=True)
class TaskPrediction:
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


class Kind:
    """What a kind of task answers for itself.

    Targets are (N, columns) everywhere, NaN where one is not known; logits (N, outputs) of the task alone.
    """

    facts: Facts
    purpose: str  # of a model, after "a backbone, adapted"; `{classes}` and `{name}` stand for the task's own
    usage: str  # a line of Python for the model card: prints what `mine`, the outputs of a `task` with `names`, says
    shown: tuple[tuple[str, str, str], ...]  # beside the headline in `zoo eval`: name, key, and a format or "%"

    # Data

    def claims(self, column: Column) -> str | None:
        """Whether a column looks as if it were of this kind where nobody said so: a note, perhaps empty, or None."""
        return None

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """The task that a column is about, and each row's target; here one class of each image, or nothing.

        Raises:
            Unfit: It does not hold what is needed.
        """
        found = column.values()
        classes = column.known.classes if column.known else self.in_order(column, found)
        if len(classes) < 2:
            raise Unfit(f"there is one class only: {', '.join(classes)}", "a task needs two to tell apart")
        refuse_unknown({text for text in column.texts if text is not None}, classes, "class")
        position = {name: float(place) for place, name in enumerate(classes)}
        task = Task(column.name, self.facts.name, tuple(classes))
        return task, [(NAN if text is None else position[text],) for text in column.texts]

    def in_order(self, column: Column, found: set[str]) -> tuple[str, ...]:
        """The classes, from what training images have."""
        return in_order(found)

    def strata(self, task: Task, targets: Values) -> Flags:
        """Which answers images give, (N, answers): what every part of a cut should have in its proportion."""
        flags: Flags = targets == np.arange(len(task.classes))
        return flags

    def counts(self, task: Task, targets: Values) -> list[int]:
        """For each output, the images that are a case of it."""
        found: list[int] = self.strata(task, targets).sum(0).tolist()
        return found

    def fitted(self, task: Task, targets: Values) -> Task:
        """The task with what its loss needs to know of the training images."""
        return task

    def lacks(self, task: Task, targets: Values) -> tuple[str, str] | None:
        """What images lack without which nothing can be measured on them, and why; None: they may be measured on."""
        return None

    # Training

    def target_mask(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """Which of the task's questions images answer, (N, questions)."""
        return targets.isfinite()

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """The mean loss over the questions that are answered, nats; 0 where none is."""
        raise NotImplementedError

    def nats(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss by which epochs are chosen: the usual one, of images that all answer."""
        return self.loss(task, logits, targets, USUAL)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """What the result is known by, from outputs as they are in training."""
        raise NotImplementedError

    # Results

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """Everything that a result says, as plain values; `loss`, `n` and `mistakes` among them.

        Args:
            task: The task.
            logits: Of a saved model: a quantity in its own unit.
            targets: Of images that all answer.
            ids: Name of each image.
        """
        raise NotImplementedError

    def calibrate(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> Task:
        """The task with what is chosen on the validation images when training is over; only asked where it keeps it."""
        return task

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """What a saved model says of each image; `top`: how many classes to give."""
        raise NotImplementedError

    def edit_head(self, task: Task, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Put the task's unit into its rows of the head, in place; only asked where the kind is scaled."""

    # Words

    def per_class(self, images: int, cases: Sequence[int]) -> list[int]:
        """Images of each class, from how many there are and how many are a case of each output."""
        return list(cases)

    def table(self, result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table that `zoo eval` shows, where there are rows."""
        rows = [[entry["name"], str(entry["n"]), percent(entry["accuracy"])] for entry in result.get("classes") or ()]
        return [self.facts.noun, "images", "accuracy"], rows


def refuse_unknown(found: set[str], known: Sequence[str], noun: str) -> None:
    """Refuse classes that training did not see."""
    unknown = sorted(found - set(known))
    if unknown:
        raise Unfit(
            f"{len(unknown)} {noun}(es) that training does not know: {', '.join(unknown[:10])}",
            f"rename or remove them, or add training images; known: {', '.join(list(known)[:10])}",
        )


def ranked(shares: torch.Tensor, task: Task, top: int) -> Shares:
    """The most probable classes of an image, best first, with their probabilities."""
    best = shares.topk(max(1, min(top, len(shares))))
    return tuple((task.classes[place], share) for share, place in
                 zip(best.values.tolist(), best.indices.tolist(), strict=True))  # fmt: skip


def _plain(pairs: Shares) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in pairs]
