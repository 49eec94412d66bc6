"""Digits source: the 1,797 handwritten 8 x 8 images that come with scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.base import registry
from zoo.data.types import DataOptions, Item, Listing, Progress, ranked

TEST_SHARE = 0.2


@lru_cache(maxsize=1)
def _table() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[int]]:
    """The images (N, 8, 8) and their labels, from the file of `load_digits`: importing scikit-learn takes too long."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = np.loadtxt(file, delimiter=",")
    else:  # a release that has it elsewhere
        from sklearn.datasets import load_digits

        bunch = load_digits()
        rows = np.column_stack([bunch.data, bunch.target])
    # Values are counts from 0 to 16.
    return np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), rows[:, -1].astype(int).tolist()


@dataclass(frozen=True)
class DigitsReader:
    """Reads one digit as a PNG; a locator is its row in scikit-learn's arrays."""

    def read(self, locator: int) -> bytes:
        """The digit as a grey PNG of 8 x 8 pixels."""
        buffer = io.BytesIO()
        Image.fromarray(_table()[0][locator]).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


FORM = ""  # a name, as the first source says


def claims(ref: str) -> bool:
    """Whether it is the catalogue's name for them."""
    entry = registry.load().datasets.get(ref)
    return entry is not None and entry.builtin == "digits"


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List the digits with a fixed stratified split, 1,437 train and 360 test, so that results of all runs compare."""
    _, labels = _table()
    rows = {digit: [row for row, label in enumerate(labels) if label == digit] for digit in range(10)}
    # Largest remainders, so that the classes' numbers add up to a fifth of all images.
    quota = {digit: int(len(of) * TEST_SHARE) for digit, of in rows.items()}
    by_remainder = sorted(rows, key=lambda digit: (-(len(rows[digit]) * TEST_SHARE % 1), digit))
    for digit in by_remainder[: math.ceil(len(labels) * TEST_SHARE) - sum(quota.values())]:
        quota[digit] += 1
    test: set[int] = set()
    for digit, of in rows.items():
        order = ranked([str(row) for row in of], seed=0, purpose="digits")
        test.update(of[position] for position in order[: quota[digit]])
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    for row, label in enumerate(labels):
        split = "test" if row in test else "train"
        splits[split].append(Item(f"{split}/{label}/{row:04d}.png", str(label), row, 0, 1))
    return Listing(
        name="digits",
        key="digits",
        splits=splits,
        classes=tuple(map(str, range(10))),
        reader=DigitsReader(),
        license="cc-by-4.0",
        hflip=False,
    )
