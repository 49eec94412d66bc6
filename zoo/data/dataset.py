"""Data set records: train, val and test parts, and images to evaluate on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.data.part import Part
from zoo.data.targets import task_counts
from zoo.data.types import RECORDED, BadImage
from zoo.errors import DataError
from zoo.tasks.schema import Task, is_plain


@dataclass(frozen=True, slots=True)
class Origin:
    """One of several data sets that were joined."""

    ref: str  # as the user gave it
    name: str
    tasks: tuple[str, ...]  # names of the tasks that its images have targets for
    fingerprint: str
    license: str | None
    selected_on: str
    reported_on: str


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test images."""

    name: str
    classes: tuple[str, ...]  # names of the outputs, in the pinned order
    train: Part  # trained on
    val: Part  # selects the epoch and the rate
    test: Part  # measured for the result
    selected_on: str  # "val", "val (cut from train)", …
    reported_on: str  # "test", "val", "test (cut from all images)", …
    fingerprint: str  # changes when an image, a label, the classes or the cut changes
    bad: tuple[BadImage, ...]  # unreadable images that were left out
    license: str | None
    notes: tuple[str, ...]
    hflip: bool  # whether a mirrored image still shows its class
    tasks: tuple[Task, ...]
    val_cut: bool = False  # whether the validation images were cut from the train split
    sets: tuple[Origin, ...] = ()  # the data sets that were joined, if several
    contents: Mapping[str, frozenset[bytes]] = field(default_factory=dict, repr=False)  # hashes by part, if known

    def require_classes(self, what: str) -> None:
        """Raises DataError, in which `what` names the caller, unless each image has one class."""
        if not is_plain(self.tasks):
            raise DataError(
                f"{what} takes images of one class each, and those of {self.name} have other targets",
                fix="use zoo adapt, one backbone at a time",
            )

    def counts(self) -> dict[str, dict[str, object]]:
        """Images of each part: in total, per class and, if there are several tasks, per task; as run.json has them."""
        counts: dict[str, dict[str, object]] = {}
        for role, part in self.parts.items():
            counts[RECORDED[role]] = {"n": len(part), "per_class": part.class_counts()}
            if len(self.tasks) > 1:
                counts[RECORDED[role]]["answers"] = task_counts(self.tasks, part.targets)
        return counts

    @property
    def parts(self) -> dict[str, Part]:
        """The three parts by name: "train", "val", "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class EvaluationSet:
    """Images to evaluate a finished model on, labelled in the model's own class order."""

    name: str
    part: Part
    split: str  # "test", "val", "train", or "all"
    fingerprint: str
    bad: tuple[BadImage, ...]
    license: str | None
    notes: tuple[str, ...]
