"""One part of a data set: its samples, labels and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import torch
from PIL import Image

from zoo.data.store.decode import Pixels, decode
from zoo.data.targets import classes_of, counts, targets_of
from zoo.data.types import Item, Reader, Sample
from zoo.errors import DataError
from zoo.tasks.schema import Target, Task, is_plain, one_class, output_names

_MISSING = 0.01  # share of images that may be missing from a store that counts as complete


class Decoded(Protocol):
    """Decoded images: a `Store`, or the stores of several data sets."""

    side: int  # short side of the images, pixels
    interpolation: str  # what they were resized with

    def pixels(self, row: int) -> Pixels | None:
        """One image, (H, W, 3); None if it is damaged or too long to be stored."""


@dataclass(kw_only=True, eq=False, repr=False)
class Part:
    """Images with labels. Safe to share between threads, to fork and to pickle."""

    role: str  # "train", "val", "test"
    items: Sequence[Item]
    labels: Sequence[int | Target]  # class positions; or targets, if there are tasks
    classes: tuple[str, ...]
    reader: Reader
    store: Decoded | None
    rows: Sequence[int] | None  # each image's row in the store; -1: not in it
    hflip: bool  # whether a mirrored image still shows its class
    on_bad_image: Literal["error", "skip"]
    tasks: tuple[Task, ...] = ()  # empty: the one task of these classes

    def __post_init__(self) -> None:
        """Add the task of plain classes."""
        self.tasks = self.tasks or one_class(self.classes)

    def __len__(self) -> int:
        """Images."""
        return len(self.items)

    def some(self, positions: Sequence[int]) -> Part:
        """The images at these positions, in this order."""
        return replace(
            self,
            items=[self.items[position] for position in positions],
            labels=[self.labels[position] for position in positions],
            rows=[self.rows[position] for position in positions] if self.rows else None,
        )

    def joined(self, other: Part) -> Part:
        """The images of this part, then those of another part of the same data set."""
        stored = self.rows is not None and other.rows is not None and self.store is other.store
        return replace(
            self,
            items=[*self.items, *other.items],
            labels=[*self.labels, *other.labels],
            rows=[*(self.rows or ()), *(other.rows or ())] if stored else None,
        )

    def with_targets(self, tasks: tuple[Task, ...], targets: Sequence[Target]) -> Part:
        """The same images with the targets of other tasks."""
        return replace(self, tasks=tasks, labels=targets, classes=output_names(tasks))

    @property
    def targets(self) -> list[Target]:
        """Each image's target."""
        if is_plain(self.tasks):
            return [(float(label),) for label in classes_of(self.labels)]
        return targets_of(self.labels)

    @cached_property
    def samples(self) -> list[Sample]:
        """Id and label of every image."""
        return [Sample(item.id, label) for item, label in zip(self.items, self.labels, strict=True)]

    @property
    def ids(self) -> list[str]:
        """The id of every image."""
        return [item.id for item in self.items]

    def id(self, index: int) -> str:
        """The id of one image."""
        return self.items[index].id

    def truth(self, positions: Sequence[int] | None = None) -> torch.Tensor:
        """Targets of some images or all: (N, columns) float32; class positions (N,) int64 if each has one class."""
        labels = self.labels if positions is None else [self.labels[position] for position in positions]
        if is_plain(self.tasks):
            return torch.tensor(labels, dtype=torch.int64)
        return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), sum(task.columns for task in self.tasks))

    def class_counts(self) -> list[int]:
        """Images of every class, in the classes' order; for other tasks, images that are a case of each output."""
        return counts(self.tasks, self.targets)

    def raw(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self.reader.read(self.items[index].locator)

    def image(self, index: int) -> Image.Image:
        """One image in its own size, RGB, upright. Raises DataError, which names it, if it cannot be read."""
        try:
            return decode(self.raw(index))
        except (OSError, ValueError) as error:
            raise DataError(
                f"the image {self.id(index)} cannot be read",
                why=str(error),
                fix="repair or remove it, or leave it out with --on-bad-image skip",
            ) from error

    def stored(self, index: int, side: int, interpolation: str) -> Pixels | None:
        """One image resized to a short side of `side`, (H, W, 3); None if the store does not have exactly that."""
        store = self.store
        if store is None or self.rows is None or store.side != side or store.interpolation != interpolation:
            return None
        row = self.rows[index]
        return store.pixels(row) if row >= 0 else None

    def is_stored(self, side: int | None, interpolation: str) -> bool:
        """Whether nearly all images, resized so, come from the store without decoding."""
        store = self.store
        if store is None or self.rows is None or store.side != side or store.interpolation != interpolation:
            return False
        return sum(row < 0 for row in self.rows) <= _MISSING * len(self.rows)

    def __repr__(self) -> str:
        """Role and size."""
        return f"Part({self.role}, {len(self)} images, {len(self.classes)} classes)"


def class_weights(part: Part) -> list[float]:
    """Weights that give every class an equal share in a loss: images / (classes x images of the class).

    A class without images has weight 1.
    """
    counts = part.class_counts()
    present = sum(count > 0 for count in counts)
    return [len(part) / (present * count) if count else 1.0 for count in counts]
