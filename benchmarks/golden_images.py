"""Small images and tables that `golden` adapts to, drawn from one seed."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

SIDE = 24  # pixels
SHAPES = ("disc", "square", "cross", "stripes")
PER_SHAPE = 12  # in each split; a stack asks for ten to be fitted on
BESIDE = 36  # images in each set without labels
ROWS = 72  # of the table


def make(root: Path) -> Path:
    """Draw the images, unless they are there already.

    Returns:
        The folder: `shapes` (splits of class folders), `night` (other colours, no labels), `more` (no labels), `new`
        (to predict on, one of them broken) and `answers.csv` (a class, labels, a level and a number for each image).
    """
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder, unfinished = root / f"images-{version}", root / "images-unfinished"
    if not folder.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        _draw_all(unfinished)
        unfinished.rename(folder)
    return folder


def _draw_all(folder: Path) -> None:
    chance = np.random.default_rng(2026)
    for split in ("train", "val", "test"):
        for shape in SHAPES:
            for number in range(PER_SHAPE):
                _save(_drawn(chance, shape), folder / "shapes" / split / shape / f"{number:02d}.png")
    for number in range(BESIDE):
        shape = SHAPES[number % len(SHAPES)]
        _save(_drawn(chance, shape), folder / "more" / f"{number:02d}.png")
        _save(255 - _drawn(chance, shape), folder / "night" / f"{number:02d}.png")
    for shape in SHAPES:
        _save(_drawn(chance, shape), folder / "new" / f"{shape}.png")
    (folder / "new" / "stripes.png").write_bytes(b"not an image")
    with (folder / "answers.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "shape", "tags", "size", "brightness"))
        for number in range(ROWS):
            shape, radius = SHAPES[number % len(SHAPES)], int(chance.integers(4, 11))
            pixels = _drawn(chance, shape, radius)
            path = Path("table") / f"{number:02d}.png"
            _save(pixels, folder / path)
            means = pixels.reshape(-1, 3).mean(0)
            tags = [name for name, mean in zip(("red", "green", "blue"), means, strict=True) if mean >= means.mean()]
            size = "small" if radius < 6 else "medium" if radius < 8 else "large"
            # Some answers are not known.
            row = [path, shape, ";".join(tags), "" if number % 11 == 5 else size]
            table.writerow([*row, "" if number % 9 == 4 else f"{means.mean() / 255:.4f}"])


def _drawn(chance: Generator, shape: str, radius: int = 0) -> np.ndarray:
    """A bright shape on a dark, noisy ground: (SIDE, SIDE, 3) uint8."""
    radius = radius or int(chance.integers(5, 9))
    down, right = np.indices((SIDE, SIDE)) - chance.integers(9, 15, (2, 1, 1))
    inside = {
        "disc": down**2 + right**2 <= radius**2,
        "square": np.maximum(abs(down), abs(right)) <= radius - 1,
        "cross": np.minimum(abs(down), abs(right)) <= radius // 4,
        "stripes": (down // max(2, radius // 3)) % 2 == 0,
    }[shape]
    ground, colour = chance.integers(0, 90, 3), chance.integers(130, 230, 3)
    noise = chance.integers(-25, 26, (SIDE, SIDE, 3))
    return (np.where(inside[..., None], colour, ground) + noise).clip(0, 255).astype(np.uint8)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
