"""Small images and folders of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data import DataOptions, Dataset, open_dataset
from zoo.models.preprocessing import DataConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    """Noise that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def fill(root: Path, counts: Mapping[str, int], start: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """`{"train/ant": 3}` -> root/train/ant/00000.png and so on, every image another one."""
    seed = start
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (root / folder / f"{seed:05d}.png").write_bytes(encoded(picture(seed, *size)))
            seed += 1
    return root


def config(side: int = 16, crop_pct: float = 0.8, crop_mode: str = "center", channels: int = 3) -> DataConfig:
    mean, std = MEAN[:channels], STD[:channels]
    return DataConfig((channels, side, side), mean, std, "bicubic", crop_pct, crop_mode)


def opened(ref: Path | str, **options: object) -> Dataset:
    return open_dataset(str(ref), DataOptions(**options), None)  # type: ignore[arg-type]


def ids(part: object) -> set[str]:
    return {sample.id for sample in part.samples}  # type: ignore[attr-defined]
