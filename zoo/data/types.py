"""Shared records: options, items, listings, readers; random order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from zoo.errors import DataError
from zoo.tasks.schema import MANY, Problem, Target, Task, TaskSpec

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) during long work; `total` is 0 if it is not known."""

BIG = 100_000
"""Number of images above which none is read before training: each is verified when it is used."""

GiB = 1 << 30

RECORDED = {"train": "fit", "val": "choose", "test": "report"}
"""What records, hashes and cached files call the three parts of a data set."""

IMAGE_LIMIT = 512 << 20
"""Largest encoded image, bytes: no photograph is so large."""

MEMBERS_LIMIT = 2_000_000
"""Most members of one archive: ImageNet has 1.3 million images."""


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """The columns of a table that hold one task."""

    name: str  # of the task
    columns: tuple[str, ...]  # one; or one per label
    kind: str | None = None  # None: guessed from the values
    levels: tuple[str, ...] = ()  # of an ordinal task, low to high; empty: in the order of their numbers


@dataclass(frozen=True, slots=True)
class DataOptions:
    """A user's choices about a data set. Raises DataError if a value is out of range."""

    path_column: str | None = None  # tables: column of paths ("path"); Hub: column of images (the first Image feature)
    label_column: str | None = None  # tables: "label"; Hub: the first ClassLabel, else a column named label(s)
    problem: Problem = "auto"  # one label or several; auto: guessed from the table
    label_separator: str | None = None  # between several labels in a cell
    specs: tuple[TaskSpec, ...] = ()  # tasks, each with its data set; empty: one class per image
    task_columns: tuple[TaskColumns, ...] = ()  # to read from a table; empty: its label column
    tasks: tuple[Task, ...] = ()  # of the model to evaluate, if not plain classes, in the order of its outputs
    config: str | None = None  # Hub configuration (subset); None: the registry's, else the default one
    train_per_class: int | None = None  # few-shot: images per class, validation images included
    limit: int | None = None  # most training images, validation images cut from them included
    val_fraction: float = 0.2  # share of each class that a cut takes, between 0 and 1
    on_bad_image: Literal["error", "skip"] = "error"
    fold: tuple[int, int] | None = None  # (K, N): the K-th (from 1) of N parts of the training images is the test part
    seed: int = 0  # of every cut and selection
    image_size: int | None = None  # short side of the decoded store, pixels (see `store_side`); None: no store
    interpolation: str = "bicubic"  # of the decoded store: the one the evaluation transform uses
    store_bytes: int = 8 * GiB  # most that all decoded stores may take on disk; 0: no store
    labels: bool = True  # whether every image must have a label; if not, a missing one is ""

    @property
    def several(self) -> bool:
        """Whether the user says that an image has several labels."""
        return self.problem == MANY or self.label_separator is not None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
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
    """Id and label of one image of a part."""

    id: str  # unique in the data set and readable: "train/ants/0013035.jpg"
    label: int | Target  # position of its class in the data set's classes, or its target


class Item(NamedTuple):
    """One image as its source lists it."""

    id: str
    label: str | Target  # its class's name, or its target for the listing's tasks
    locator: Any  # for the source's reader: a path, a member, a row
    size: int  # bytes; 0 if the source does not know
    stamp: int  # changes when the content may have: a modification time, a checksum


class Reader(Protocol):
    """Reads encoded images. Safe to share between threads, to fork and to pickle."""

    def read(self, locator: Any) -> bytes:
        """The encoded bytes of one image. Raises OSError if they cannot be read, ValueError if they are damaged."""


@dataclass(frozen=True)
class Listing:
    """What a source knows about a data set before any image is read."""

    name: str  # short, for messages and folder names: "hymenoptera"
    key: str  # identifies the place of the items; with an item's id the key of the scan's cache
    splits: Mapping[str, Sequence[Item]]  # keys: among "train", "val", "test"; or only "all"
    classes: tuple[str, ...]  # of the training split, in the pinned order; with tasks: their outputs' names
    reader: Reader
    license: str | None = None
    hflip: bool = True  # whether a mirrored image still shows its class
    notes: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()  # empty: labels are class names


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be read."""

    path: str  # the item's id
    error: str

    def as_dict(self) -> dict[str, str]:
        """The two fields as plain values."""
        return {"path": self.path, "error": self.error}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranked(ids: Sequence[str], *, seed: int, purpose: str) -> list[int]:
    """Positions of `ids` in a random order that depends only on each id, the seed and the purpose."""
    start = hashlib.blake2b(f"{seed}\n{purpose}\n".encode(), digest_size=16)

    def key(position: int) -> tuple[bytes, str]:
        digest = start.copy()
        digest.update(ids[position].encode("utf-8", "surrogatepass"))
        return digest.digest(), ids[position]

    return sorted(range(len(ids)), key=key)


def hash_of_ids(ids: Iterable[str]) -> str:
    """The sha256 of images' ids, in their order."""
    return hashlib.sha256("\0".join(ids).encode("utf-8", "surrogatepass")).hexdigest()
