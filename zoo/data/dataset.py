"""Images in their roles: what training fits, what chooses, what the result is reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.data.part import Part
from zoo.data.targets import answers
from zoo.data.types import BadImage
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
    """Images in their three roles."""

    name: str
    classes: tuple[str, ...]  # in the pinned order: what the outputs are called
    fit: Part  # trained on
    choose: Part  # chooses the epoch and the rate
    report: Part  # the result is measured on these
    selected_on: str  # "val", "val (cut from train)", …
    reported_on: str  # "test", "val", "test (cut from all images)", …
    fingerprint: str  # changes when an image, a label, the classes or the cut changes
    bad: tuple[BadImage, ...]  # unreadable images that were left out
    license: str | None
    notes: tuple[str, ...]
    hflip: bool  # whether a mirrored image still shows its class
    tasks: tuple[Task, ...]  # what images answer
    choose_cut: bool = False  # whether what chooses was cut from what would be trained on, and not given apart
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
        parts = {"fit": self.fit, "choose": self.choose, "report": self.report}
        found: dict[str, dict[str, object]] = {}
        for name, part in parts.items():
            found[name] = {"n": len(part), "per_class": part.class_counts()}
            if len(self.tasks) > 1:
                found[name]["answers"] = answers(self.tasks, part.targets)
        return found


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
