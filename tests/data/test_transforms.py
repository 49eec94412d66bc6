from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms

from tests.data.pictures import MEAN, STD, config, picture
from zoo.data import normalised, store_side
from zoo.data.transforms import draw_seed, evaluation_view, generators_kept, seed_all, training_view
from zoo.errors import DataError
from zoo.models import DataConfig


def test_normalisation_is_totensor_and_normalize_to_the_bit() -> None:
    images = [np.asarray(picture(seed)) for seed in range(3)]
    own = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    batch = normalised(images, MEAN, STD)
    assert torch.equal(batch, torch.stack([own(Image.fromarray(image)) for image in images]))
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


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


@pytest.mark.parametrize("preset", ["light", "standard", "strong"])
@pytest.mark.parametrize("side", [8, 32])
def test_presets_give_the_inputs_size_from_any_image(preset: str, side: int) -> None:
    view = training_view(config(side=side), preset, 0.5)  # type: ignore[arg-type]
    for size in ((5, 5), (40, 17), (17, 40)):
        with generators_kept():
            seed_all(1)
            assert view(picture(1, *size)).shape == (side, side, 3)


def test_none_is_the_evaluation_view() -> None:
    image = picture(4, 50, 40)
    one, other = training_view(config(), "none", 0.5), evaluation_view(config())
    assert (one(image) == other(image)).all()
    assert one.evaluation


def test_presets_differ_in_what_they_change() -> None:
    grey = Image.new("RGB", (64, 64), (100, 120, 140))

    def colours(preset: str) -> set[tuple[int, ...]]:
        view = training_view(config(side=16), preset, 0.5)  # type: ignore[arg-type]
        found = set()
        for seed in range(30):
            with generators_kept():
                seed_all(seed)
                found.add(tuple(view(grey)[8, 8].tolist()))
        return found

    assert colours("light") == {(100, 120, 140)}
    assert len(colours("standard")) > 20
    assert len(colours("strong")) > 5
    assert training_view(config(), "strong", 0.5).erase is not None
    assert training_view(config(), "standard", 0.5).erase is None


def test_crops_keep_the_stated_share_of_the_image() -> None:
    # A ramp shows how much of the width a crop spans.
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 256, dtype=np.uint8)[None, :, None], (256, 1, 3)))
    least = {}
    for preset in ("light", "standard"):
        view = training_view(config(side=32), preset, 0.0)  # type: ignore[arg-type]
        spans = []
        for seed in range(80):
            with generators_kept():
                seed_all(seed)
                row = view(ramp)[16, :, 0].astype(int)
                spans.append((row[-1] - row[0]) / 255)
        least[preset] = min(spans)
    assert least["light"] > 0.6
    assert 0.3 < least["standard"] < 0.7


def test_flip_can_be_left_out() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3)))

    def mirrored(hflip: float) -> int:
        view = training_view(config(), "light", hflip)
        count = 0
        for seed in range(40):
            with generators_kept():
                seed_all(seed)
                pixels = view(ramp)
                count += int(pixels[8, 0, 0] > pixels[8, -1, 0])
        return count

    assert mirrored(0.0) == 0
    assert 8 < mirrored(0.5) < 32


def test_seeds_depend_on_every_part() -> None:
    base = draw_seed(0, 0, "a", 0)
    others = {draw_seed(1, 0, "a", 0), draw_seed(0, 1, "a", 0), draw_seed(0, 0, "b", 0), draw_seed(0, 0, "a", 1)}
    assert len({base, *others}) == 5
    assert draw_seed(0, 0, "a", 0) == base


def test_generators_are_put_back() -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with generators_kept():
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
