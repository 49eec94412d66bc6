"""The data set: its train, validation and test images, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.data.part import Part
from zoo.data.targets import answers
from zoo.data.types import RECORDED, BadImage
from zoo.errors import DataError
from zoo.tasks.schema import Task, is_plain


@dataclass(frozen=True, slots=True)
class Origin:
    """One of several data sets whose images were put together."""

    ref: str  # as it was asked for
    name: str
    tasks: tuple[str, ...]  # names of those that its images answer
    fingerprint: str
    license: str | None
    selected_on: str
    reported_on: str


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test images."""

    name: str
    classes: tuple[str, ...]  # in the pinned order: what the outputs are called
    train: Part  # trained on
    val: Part  # chooses the epoch and the rate
    test: Part  # the result is measured on these
    selected_on: str  # "val", "val (cut from train)", …
    reported_on: str  # "test", "val", "test (cut from all images)", …
    fingerprint: str  # changes when an image, a label, the classes or the cut changes
    bad: tuple[BadImage, ...]  # unreadable images that were left out
    license: str | None
    notes: tuple[str, ...]
    hflip: bool  # whether a mirrored image still shows its class
    tasks: tuple[Task, ...]  # what images answer
    val_cut: bool = False  # whether the validation images were cut from the train split
    sets: tuple[Origin, ...] = ()  # where images of several data sets come from
    contents: Mapping[str, frozenset[bytes]] = field(default_factory=dict, repr=False)  # of each part, where known

    def require_classes(self, what: str) -> None:
        """Refuse images that are not each of one class.

        Raises:
            DataError: They have several labels, or answer several questions; `what` cannot deal with these.
        """
        if not is_plain(self.tasks):
            raise DataError(
                f"{what} takes images of one class each, and those of {self.name} answer otherwise",
                fix="use zoo adapt, one backbone at a time",
            )

    def counts(self) -> dict[str, dict[str, object]]:
        """Images of each part, in all, per class and of several tasks per task, in the form that run.json has."""
        found: dict[str, dict[str, object]] = {}
        for role, part in self.parts.items():
            counts = found[RECORDED[role]] = {"n": len(part), "per_class": part.class_counts()}
            if len(self.tasks) > 1:
                counts["answers"] = answers(self.tasks, part.targets)
        return found

    @property
    def parts(self) -> dict[str, Part]:
        """The three parts by name: "train", "val", "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class EvaluationSet:
    """Images to score a finished model on, labelled in the model's own class order."""

    name: str
    part: Part
    split: str  # "test", "val", "train", or "all"
    fingerprint: str
    bad: tuple[BadImage, ...]
    license: str | None
    notes: tuple[str, ...]
