"""One part of a data set: its samples, their images, and the stored pixels where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import torch
from PIL import Image

from zoo.data.store.decode import UnreadableImage, decode
from zoo.data.store.segment import Pixels
from zoo.data.targets import classes_of, counts, targets_of
from zoo.data.types import Item, Reader, Sample
from zoo.errors import DataError
from zoo.tasks.schema import Target, Task, is_plain, one_class, output_names

_STRAGGLERS = 0.01  # share of images that may be missing from a store that counts as whole


class Decoded(Protocol):
    """Decoded images, as `zoo.data.store.store.Store` has them."""

    @property
    def side(self) -> int:
        """Short side of the images, pixels."""

    @property
    def interpolation(self) -> str:
        """What they were resized with."""

    def pixels(self, row: int) -> Pixels | None:
        """One image, (H, W, 3); None where it is damaged."""


class PixelSource(NamedTuple):
    """Where the images of a part come from."""

    items: Sequence[Item]
    reader: Reader
    store: Any  # a `Decoded`, or None
    rows: Sequence[int] | None  # of the images in the store; -1 for one that it does not have


class Part:
    """Images with labels. Safe to share between threads, to fork and to pickle."""

    def __init__(
        self,
        *,
        role: str,
        items: Sequence[Item],
        labels: Sequence[int | Target],
        classes: tuple[str, ...],
        reader: Reader,
        store: Decoded | None,
        rows: Sequence[int] | None,
        hflip: bool,
        on_bad_image: Literal["error", "skip"],
        tasks: tuple[Task, ...] = (),
    ) -> None:
        self.role = role  # "train", "val", "test"
        self.classes = classes
        self.tasks = tasks or one_class(classes)  # what images answer
        self.labels = list(labels)
        self.hflip = hflip
        self.on_bad_image = on_bad_image
        self._items = items
        self._reader = reader
        self._store = store
        self._rows = rows

    def __len__(self) -> int:
        """Images."""
        return len(self._items)

    def some(self, positions: Sequence[int]) -> Part:
        """The images at these positions, in this order."""
        return Part(
            role=self.role,
            items=[self._items[position] for position in positions],
            labels=[self.labels[position] for position in positions],
            classes=self.classes,
            reader=self._reader,
            store=self._store,
            rows=[self._rows[position] for position in positions] if self._rows else None,
            hflip=self.hflip,
            on_bad_image=self.on_bad_image,
            tasks=self.tasks,
        )

    def joined(self, other: Part) -> Part:
        """The images of this part and then those of another one of the same data set."""
        both = self.some([])
        both.labels = [*self.labels, *other.labels]
        both._items = [*self._items, *other._items]
        stored = self._rows is not None and other._rows is not None and self._store is other._store
        both._rows = [*(self._rows or ()), *(other._rows or ())] if stored else None
        return both

    def answering(self, tasks: tuple[Task, ...], targets: Sequence[Target]) -> Part:
        """The same images with answers to tasks instead."""
        part = self.some(range(len(self)))
        part.tasks, part.labels, part.classes = tasks, list(targets), output_names(tasks)
        return part

    @property
    def source(self) -> PixelSource:
        """Where the images come from."""
        return PixelSource(self._items, self._reader, self._store, self._rows)

    @property
    def targets(self) -> list[Target]:
        """The images' answers."""
        if is_plain(self.tasks):
            return [(float(label),) for label in classes_of(self.labels)]
        return targets_of(self.labels)

    @cached_property
    def samples(self) -> list[Sample]:
        """Id and label of every image."""
        return [Sample(item.id, label) for item, label in zip(self._items, self.labels, strict=True)]

    @property
    def ids(self) -> list[str]:
        """The id of every image."""
        return [item.id for item in self._items]

    def id(self, index: int) -> str:
        """The id of one image."""
        return self._items[index].id

    def truth(self, positions: Sequence[int] | None = None) -> torch.Tensor:
        """True answers of some images or all: (N, columns) float32; where each is of one class (N,) int64."""
        labels = self.labels if positions is None else [self.labels[position] for position in positions]
        if is_plain(self.tasks):
            return torch.tensor(labels, dtype=torch.int64)
        return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), sum(task.columns for task in self.tasks))

    def class_counts(self) -> list[int]:
        """Images of every class, in the classes' order; of other tasks those that are a case of each output."""
        return counts(self.tasks, self.targets)

    def raw(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self._reader.read(self._items[index].locator)

    def image(self, index: int) -> Image.Image:
        """One image in its own size, RGB, as a person would see it.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        try:
            return decode(self.raw(index))
        except (OSError, UnreadableImage, ValueError) as error:
            raise DataError(
                f"the image {self.id(index)} cannot be read",
                why=str(error),
                fix="repair or remove it, or leave it out with --on-bad-image skip",
            ) from error

    def stored(self, index: int, side: int, interpolation: str) -> Pixels | None:
        """One image resized to a short side of `side`, (H, W, 3), if the store has just that; else None."""
        store = self._store
        if store is None or self._rows is None or store.side != side or store.interpolation != interpolation:
            return None
        row = self._rows[index]
        return store.pixels(row) if row >= 0 else None

    def is_stored(self, side: int | None, interpolation: str) -> bool:
        """Whether nearly all images, resized so, come from a store without decoding."""
        store = self._store
        if store is None or self._rows is None or store.side != side or store.interpolation != interpolation:
            return False
        return sum(row < 0 for row in self._rows) <= _STRAGGLERS * len(self._rows)

    def __repr__(self) -> str:
        """Role and size."""
        return f"Part({self.role}, {len(self)} images, {len(self.classes)} classes)"


def class_weights(part: Part) -> list[float]:
    """Weights that make every class count alike in a loss: images / (classes x images of the class).

    A class without images has weight 1: nothing is known of it.
    """
    counts = part.class_counts()
    present = sum(count > 0 for count in counts)
    return [len(part) / (present * count) if count else 1.0 for count in counts]
