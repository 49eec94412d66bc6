"""Runs to put together: three of one architecture on the same images, and where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from tests.pictures import make_images
from zoo.runs.run_folder import Run

RECIPE = zoo.Recipe(strategy="probe", epochs=1, batch_size=11, image_size=32, precision="fp32", threads=1, workers=0,
                    recalibrate="off", refit="off", cache="off", val_fraction=0.4)  # fmt: skip


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stacked")
    splits = {"train": dict.fromkeys(("amber", "blue"), 28), "test": dict.fromkeys(("amber", "blue"), 10)}
    return make_images(root / "secret-place" / "photos", splits)


@pytest.fixture(scope="session")
def runs(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """From the same start, with different rates."""
    root = tmp_path_factory.mktemp("runs")
    return [
        zoo.adapt("resnet_nano", str(images), zoo.recipes.recipe.with_choices(RECIPE, {"lr": lr}), out=root / name)
        for name, lr in (("gentle", 1e-3), ("brisk", 1e-2), ("hasty", 5e-2))
    ]
