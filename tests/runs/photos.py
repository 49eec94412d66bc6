"""What the tests of cached features adapt on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pictures import make_images

CHOICES: dict[str, Any] = {"strategy": "partial", "epochs": 3, "lr": 0.003, "image_size": 32, "threads": 1,
                           "precision": "fp32", "batch_size": 8, "augment": "none"}  # fmt: skip


def make_photos(root: Path) -> Path:
    train = {"amber": 13, "blue": 9, "green": 11}
    split = dict.fromkeys(train, 4)
    return make_images(root / "photos", {"train": train, "val": split, "test": split})
