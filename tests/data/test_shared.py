"""Real archives, where the shared folder is beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.data import create_transform

from tests.data.pictures import config, ids, opened
from zoo.data import eval_batches, store_side


@pytest.mark.parametrize(
    ("name", "sizes", "classes", "reported_on"),
    [
        ("hymenoptera", (195, 49, 153), 2, "val"),
        ("flowers12", (576, 144, 240), 12, "test"),
        ("pacs_photo", (1071, 267, 332), 7, "test (cut from all images)"),
    ],
)
def test_whole_archives(shared: Path, name: str, sizes: tuple[int, int, int], classes: int, reported_on: str) -> None:
    found = opened(shared / "data" / f"{name}.zip")
    assert sum((len(found.train), len(found.val), len(found.test))) == sum(sizes)
    assert (len(found.classes), found.reported_on) == (classes, reported_on)
    assert len(found.test) == pytest.approx(sizes[2], abs=3)
    assert found.bad == ()


def test_few_of_fifty_thousand(shared: Path) -> None:
    found = opened(shared / "data" / "cifar10.zip", train_per_class=10, on_bad_image="error", store_bytes=0)
    assert (len(found.train), len(found.val), len(found.test)) == (80, 20, 10_000)
    assert not ids(found.train) & ids(found.val)


def test_evaluation_is_timms_own_on_photographs(shared: Path) -> None:
    settings = config(side=224, crop_pct=0.875)
    found = opened(shared / "data" / "hymenoptera.zip", image_size=store_side(settings), train_per_class=5)
    transform = create_transform(**settings.as_dict(), is_training=False)
    batch = next(iter(eval_batches(found.test, config=settings, batch_size=12)))
    assert torch.equal(batch.images, torch.stack([transform(found.test.image(i)) for i in range(12)]))
