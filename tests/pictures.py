"""Made-up images that a network learns within a few steps: a colour per class, some noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "amber": (230, 170, 20),
    "blue": (30, 60, 220),
    "green": (20, 190, 60),
    "red": (220, 30, 40),
    "teal": (20, 160, 170),
    "violet": (150, 40, 200),
    "white": (245, 245, 245),
}


def make_images(root: Path, counts: dict[str, dict[str, int]] | dict[str, int], *, size: int = 32) -> Path:
    """Class folders of PNG files under `root`; `counts` is images per class, or that per split.

    Every picture differs from every other, and the same call makes the same ones.
    """
    nested = counts if all(isinstance(value, dict) for value in counts.values()) else {"": counts}
    number = 0
    for split, classes in nested.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                number += 1
                noise = np.random.default_rng(number).normal(0, 25, (size, size, 3))
                pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return root


def four(root: Path, each: int = 16, *, size: int = 32) -> Path:
    """Four classes in one folder, `each` images a class."""
    return make_images(root, dict.fromkeys(("amber", "blue", "green", "red"), each), size=size)
