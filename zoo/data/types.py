"""The records that pass between the rooms of `zoo.data`: options, items, listings, readers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from zoo.errors import DataError
from zoo.tasks.schema import MANY, Problem, Target, Task, TaskSpec

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) while something takes long; `total` is 0 when it is not known."""

BIG = 100_000
"""Images above which nothing is read before training: they are verified as they are read."""

GiB = 1 << 30

RECORDED = {"train": "fit", "val": "choose", "test": "report"}
"""What records, hashes and cached files call the three parts of a data set."""

IMAGE_LIMIT = 512 << 20
"""Bytes of one encoded image, at most: nothing so large is a photograph."""

MEMBERS_LIMIT = 2_000_000
"""Members of one archive, at most: ImageNet has 1.3 million images."""


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """What a table is asked about its images."""

    name: str  # of the task
    columns: tuple[str, ...]  # one; or one for each label
    kind: str | None = None  # None: guessed from the values
    steps: tuple[str, ...] = ()  # of an ordinal task, from low to high; none: in the order of their numbers


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What a person can choose about a data set.

    Raises:
        DataError: A value lies outside what is possible.
    """

    path_column: str | None = None  # tables: column of paths ("path"); Hub: column of images (the first Image feature)
    label_column: str | None = None  # tables: "label"; Hub: the first ClassLabel, else a column named label(s)
    problem: Problem = "auto"  # what an image has; auto: as the table looks
    label_separator: str | None = None  # stands between several labels in a cell
    specs: tuple[TaskSpec, ...] = ()  # the tasks that were asked for, each with its data set; none: one class
    task_columns: tuple[TaskColumns, ...] = ()  # what a table is asked; none: its label column
    tasks: tuple[Task, ...] = ()  # of a model that is scored and has more than classes, in the order of its outputs
    config: str | None = None  # Hub configuration (subset); None: the registry's, else the default one
    train_per_class: int | None = None  # few-shot: images per class, validation images included
    limit: int | None = None  # training images at most, validation images cut from them included
    val_fraction: float = 0.2  # share of each class that a cut takes, 0 to 1, both excluded
    on_bad_image: Literal["error", "skip"] = "error"
    fold: tuple[int, int] | None = None  # this part of the training images, from 1, of so many reports
    seed: int = 0  # of every cut and choice among the images
    image_size: int | None = None  # short side in pixels of the decoded store (see `store_side`); None: no store
    interpolation: str = "bicubic"  # of the decoded store: the one the evaluation transform uses
    store_bytes: int = 8 * GiB  # most that the decoded stores may take on disk, together; 0: no store
    labels: bool = True  # whether every image must have a label; else one without has the empty text

    @property
    def several(self) -> bool:
        """Whether a person says that an image has several labels."""
        return self.problem == MANY or self.label_separator is not None

    def __post_init__(self) -> None:
        """Refuse what is impossible."""
        if not 0.0 < self.val_fraction < 1.0:
            raise DataError(
                f"the validation fraction is {self.val_fraction}", fix="choose one between 0 and 1, such as 0.2"
            )
        for name in ("train_per_class", "limit", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}", fix="choose a whole number from 1 on")
        if self.on_bad_image not in ("error", "skip"):
            raise DataError(f"on_bad_image is {self.on_bad_image!r}", fix="choose error or skip")


class Sample(NamedTuple):
    """One image of a part, as the rest of the program sees it."""

    id: str  # unique in the data set and readable: "train/ants/0013035.jpg"
    label: int | Target  # position of its class in the data set's classes, or its answers to the data set's tasks


class Item(NamedTuple):
    """One image as its source lists it."""

    id: str
    label: str | Target  # its class's name, or its answers to the listing's tasks
    locator: Any  # what the source's reader takes: a path, a member, a row
    size: int  # bytes, 0 where the source does not know
    stamp: int  # changes when the content may have: a modification time, a checksum


class Reader(Protocol):
    """Reads encoded images. Safe to share between threads, to fork and to pickle."""

    def read(self, locator: Any) -> bytes:
        """The encoded bytes of one image.

        Raises:
            OSError: They cannot be read.
            ValueError: They are damaged.
        """


@dataclass(frozen=True)
class Listing:
    """Everything a source says about a data set before any image is read."""

    name: str  # short, for people and for folder names: "hymenoptera"
    key: str  # says which place the items come from; half of the key of the scan's cache
    splits: Mapping[str, Sequence[Item]]  # keys among "train", "val", "test"; or only "all"
    classes: tuple[str, ...]  # of the training split, in the order that is pinned; with tasks: their outputs' names
    reader: Reader
    license: str | None = None
    hflip: bool = True  # whether a mirrored image still shows its class
    notes: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()  # what items answer; none: labels are names of classes


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be read."""

    path: str  # the item's id
    error: str

    def as_dict(self) -> dict[str, str]:
        """The two fields as plain values."""
        return {"path": self.path, "error": self.error}


@dataclass
class Tally:
    """Counts images as they go by and tells whoever listens, a hundred times at most."""

    stage: str
    total: int
    listener: Progress | None
    done: int = 0
    _last: int = field(default=-1, repr=False)

    def step(self, count: int = 1) -> None:
        """Count `count` more."""
        self.done += count
        mark = self.done * 100 // max(1, self.total)
        if self.listener is not None and (mark != self._last or self.done == self.total):
            self._last = mark
            self.listener(self.stage, self.done, self.total)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranked(ids: Sequence[str], *, seed: int, purpose: str) -> list[int]:
    """Positions of `ids` in a random order that depends on nothing but each id, the seed and the purpose."""
    start = hashlib.blake2b(f"{seed}\n{purpose}\n".encode(), digest_size=16)

    def key(position: int) -> tuple[bytes, str]:
        digest = start.copy()
        digest.update(ids[position].encode("utf-8", "surrogatepass"))
        return digest.digest(), ids[position]

    return sorted(range(len(ids)), key=key)


def hash_of_ids(ids: Iterable[str]) -> str:
    """The sha256 of images' ids, in their order."""
    return hashlib.sha256("\0".join(ids).encode("utf-8", "surrogatepass")).hexdigest()
