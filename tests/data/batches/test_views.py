from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from timm.data import create_transform

from tests.data.pictures import MEAN, STD, config, picture
from zoo.data import store_side
from zoo.data.batches.views import evaluation_view, restored_generators, seed_all, training_view
from zoo.errors import DataError
from zoo.models.preprocessing import DataConfig


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        (config(side=224, crop_pct=0.875), 256),
        (config(side=224, crop_pct=0.95), 235),
        (config(side=64, crop_pct=1.0), 64),
        (config(crop_mode="squash"), None),
        (config(crop_mode="border"), None),
        (config(channels=1), None),
        (DataConfig((3, 10, 20), MEAN, STD, "bicubic", 0.9), None),
    ],
)
def test_the_stores_side_is_what_timm_resizes_to(settings: DataConfig, side: int | None) -> None:
    assert store_side(settings) == side
    if side is not None:
        resize = create_transform(**settings.as_dict(), is_training=False).transforms[0]
        assert resize.size == side


def test_none_is_the_evaluation_view() -> None:
    image = np.asarray(picture(4, 50, 40))
    one, other = training_view(config(), "none", 0.5), evaluation_view(config())
    assert (one.of(image) == other.of(image)).all()
    assert not one.random


def test_what_each_preset_asks_for() -> None:
    light, standard, strong = (training_view(config(), name, 0.5) for name in ("light", "standard", "strong"))
    assert (light.scale, light.jitter, light.erases, light.batched) == ((0.7, 1.0), 0.0, False, True)
    assert (standard.scale, standard.jitter, standard.erases, standard.batched) == ((0.35, 1.0), 0.2, False, True)
    assert (strong.steps is not None, strong.erases, strong.batched) == (True, True, False)


@pytest.mark.parametrize("side", [8, 32])
def test_strong_gives_the_inputs_size_from_any_image(side: int) -> None:
    view = training_view(config(side=side), "strong", 0.5)
    for size in ((5, 5), (40, 17), (17, 40)):
        with restored_generators():
            seed_all(1)
            assert view.of(np.asarray(picture(1, *size))).shape == (side, side, 3)


def test_generators_are_put_back() -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with restored_generators():
        seed_all(99)
        random.random(), np.random.rand(), torch.rand(5)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_refusals() -> None:
    with pytest.raises(DataError, match="no augmentation preset 'heavy'\n  fix: choose one of: none, light"):
        training_view(config(), "heavy", 0.5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="takes images of 4 channels"):
        evaluation_view(DataConfig((4, 8, 8), (0.5,) * 4, (0.5,) * 4, "bicubic", 1.0))
    with pytest.raises(DataError, match="mean and std have 3 and 3 values for 1 channels"):
        evaluation_view(DataConfig((1, 8, 8), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0))
