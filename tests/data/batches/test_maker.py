"""Batches against timm's own transforms, on the processor and as an accelerator would make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from tests.data.pictures import MEAN, STD, config, encoded, opened, picture
from zoo.data import Dataset, store_side
from zoo.data.batches.draws import RATIO, draw_seed
from zoo.data.batches.maker import Key, Maker
from zoo.data.batches.views import _PRESETS, restored_generators, seed_all, training_view
from zoo.models.preprocessing import DataConfig

CPU = torch.device("cpu")
SIZES = [(90, 70), (70, 90), (64, 64), (200, 66), (60, 400), (30, 30)]


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Smooth in most places and full of edges in some, so that interpolations differ and rounding does not."""
    return picture(seed, max(2, width // 8), max(2, height // 8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for number in range(24):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        image = photograph(number, *SIZES[number % len(SIZES)])
        (root / "ab"[number % 2] / f"{number}.png").write_bytes(encoded(image))
    return root


def settings(side: int = 48, interpolation: str = "bicubic", channels: int = 3) -> DataConfig:
    return DataConfig((channels, side, side), MEAN[:channels], STD[:channels], interpolation, 0.875)


def maker(found: Dataset, to: DataConfig, preset: str, *, hflip: float = 0.5, resizing: bool = False) -> Maker:
    view = training_view(to, preset, hflip)  # type: ignore[arg-type]
    return Maker(found.train, view, to.mean, to.std, 3, resizing=resizing)


def levels(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """Normalised images as grey levels again, 0 to 255, (B, H, W, C)."""
    channels = images.shape[1]
    mean, std = (torch.tensor(each[:channels]).view(1, -1, 1, 1) for each in (MEAN, STD))
    return ((images * std + mean) * 255).permute(0, 2, 3, 1).numpy()


def by_timm(found: Dataset, to: DataConfig, preset: str, keys: list[Key]) -> np.ndarray[Any, Any]:
    side = store_side(to)
    transform = create_transform(
        to.input_size, is_training=True, ratio=RATIO, interpolation=to.interpolation, mean=to.mean, std=to.std,
        re_prob=0.0, **_PRESETS[preset],
    )  # fmt: skip
    made = []
    for key in keys:
        pixels = found.train.stored(key.position, side, to.interpolation) if side is not None else None
        image = found.train.image(key.position) if pixels is None else Image.fromarray(pixels)
        with restored_generators():
            seed_all(draw_seed(3, key.epoch, found.train.id(key.position), key.view))
            made.append(transform(image.convert("RGB" if to.input_size[0] == 3 else "L")))
    return levels(torch.stack(made))


KEYS = [Key(epoch, position, view) for epoch in (0, 1) for position in range(12) for view in (0, 1)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("preset", ["light", "standard"])
@pytest.mark.parametrize("resizing", [False, True])
def test_views_are_timms_own_but_for_rounding(folder: Path, preset: str, interpolation: str, resizing: bool) -> None:
    to = settings(interpolation=interpolation)
    found = opened(folder, image_size=store_side(to), interpolation=interpolation)
    ours = maker(found, to, preset, resizing=resizing)
    made = levels(ours.finish(ours.make(KEYS), CPU).images)
    expected = by_timm(found, to, preset, KEYS)
    assert np.abs(made - expected).max() < (2.01 if preset == "light" else 4.01)
    assert np.abs(made - expected).mean() < 0.1


def test_strong_is_timms_own_but_for_the_erased_rectangle(folder: Path) -> None:
    to = settings()
    found = opened(folder, image_size=store_side(to))
    ours = maker(found, to, "strong")
    packed = ours.make(KEYS)
    batch = ours.finish(packed, CPU)
    made, expected = levels(batch.images), by_timm(found, to, "strong", KEYS)
    same = np.isclose(made, expected, atol=1e-3).all(axis=3)
    assert packed.erased is not None
    touched = 0
    for row, (top, left, height, width) in enumerate(packed.erased.tolist()):
        inside = np.zeros(same.shape[1:], dtype=bool)
        inside[top : top + height, left : left + width] = True
        assert same[row][~inside].all()
        assert (batch.images[row].permute(1, 2, 0).numpy()[inside] == 0).all()
        touched += height > 0
    assert 4 < touched < 24  # about a quarter of 48


def test_grey_and_oblong_inputs_crop_the_image_in_its_own_size(folder: Path) -> None:
    found = opened(folder, image_size=54)
    oblong = DataConfig((3, 24, 40), MEAN, STD, "bicubic", 0.9)
    for to in (settings(channels=1), oblong):
        for resizing in (False, True):
            ours = maker(found, to, "standard", resizing=resizing)
            made = levels(ours.finish(ours.make(KEYS), CPU).images)
            assert np.abs(made - by_timm(found, to, "standard", KEYS)).max() < 5


@pytest.mark.parametrize("preset", ["none", "light", "standard", "strong"])
def test_the_store_changes_nothing(folder: Path, preset: str) -> None:
    to = settings()
    stored, plain = opened(folder, image_size=store_side(to)), opened(folder)
    assert stored.train.is_stored(store_side(to), "bicubic") and not plain.train.is_stored(store_side(to), "bicubic")
    first, second = (maker(found, to, preset) for found in (stored, plain))
    assert torch.equal(first.finish(first.make(KEYS), CPU).images, second.finish(second.make(KEYS), CPU).images)


@pytest.mark.parametrize("preset", ["none", "light", "standard", "strong"])
@pytest.mark.parametrize("resizing", [False, True])
def test_pixels_do_not_depend_on_company_or_threads(folder: Path, preset: str, resizing: bool) -> None:
    to = settings(side=75)  # its rows do not divide among threads or registers
    found = opened(folder, image_size=store_side(to))
    ours = maker(found, to, preset, resizing=resizing)
    whole = ours.finish(ours.make(KEYS), CPU).images
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        few = [ours.finish(ours.make(KEYS[start : start + 5]), CPU).images for start in range(0, len(KEYS), 5)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat(few), whole)


@pytest.mark.parametrize("preset", ["none", "light", "standard", "strong"])
def test_both_ways_of_resizing_agree(folder: Path, preset: str) -> None:
    to = settings()
    found = opened(folder, image_size=store_side(to))
    here, there = (maker(found, to, preset, resizing=resizing) for resizing in (False, True))
    packed = there.make(KEYS)
    assert (packed.sizes is not None) == (preset in ("light", "standard"))
    one, other = here.finish(here.make(KEYS), CPU), there.finish(packed, CPU)
    assert np.abs(levels(one.images) - levels(other.images)).max() < 3.01
    assert np.abs(levels(one.images) - levels(other.images)).mean() < 0.05
    for batch in (one, other):
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.tolist() == [found.train.labels[key.position] for key in KEYS]


def test_presets_differ_in_what_they_change(folder: Path, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        grey = Image.new("RGB", (64, 64), (100, 120, 140 + number))
        (tmp_path / "ab"[number % 2] / f"{number}.png").write_bytes(encoded(grey))
    to = settings(side=16)
    found = opened(tmp_path)

    def colours(preset: str) -> set[tuple[int, ...]]:
        ours = maker(found, to, preset)
        images = levels(ours.finish(ours.make([Key(0, 0, view) for view in range(30)]), CPU).images)
        return {tuple(np.rint(image[8, 8]).astype(int).tolist()) for image in images}

    assert len(colours("light")) == 1
    assert len(colours("standard")) > 20
    assert len(colours("strong")) > 5


def test_crops_keep_the_stated_share_of_the_image(tmp_path: Path) -> None:
    # A ramp shows how much of the width a crop spans.
    ramp = np.tile(np.linspace(0, 255, 256, dtype=np.uint8)[None, :, None], (256, 1, 3))
    for number in range(8):
        ramp[0, 0] = number
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.png").write_bytes(encoded(Image.fromarray(ramp)))
    found = opened(tmp_path, image_size=store_side(config(side=32)))
    least = {}
    for preset in ("light", "standard"):
        ours = maker(found, config(side=32), preset, hflip=0.0)
        images = levels(ours.finish(ours.make([Key(0, 0, view) for view in range(80)]), CPU).images)
        least[preset] = min((image[16, -1, 0] - image[16, 0, 0]) / 255 for image in images)
    assert least["light"] > 0.6
    assert 0.3 < least["standard"] < 0.7


def test_the_look_says_what_pixels_depend_on(folder: Path) -> None:
    found = opened(folder)
    looks = [maker(found, settings(), preset).look for preset in ("none", "light", "standard", "strong")]
    looks += [maker(found, settings(side=32), "light").look, maker(found, settings(), "light", hflip=0.0).look]
    assert len({repr(look) for look in looks}) == len(looks)
    assert repr(maker(found, settings(), "light").look) == repr(looks[1])


def test_the_look_says_who_resizes(folder: Path) -> None:
    found = opened(folder)
    for preset, filter_name in (("none", "bicubic"), ("light", "bicubic"), ("light", "lanczos"), ("strong", "bicubic")):
        to = settings(interpolation=filter_name)
        now, later = (repr(maker(found, to, preset, resizing=way).look) for way in (False, True))
        # All but one are Pillow's work on any device.
        assert (now != later) == ((preset, filter_name) == ("light", "bicubic"))


def test_the_look_says_what_made_the_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = maker(opened(folder), settings(), "none")
    looks = {repr(ours.look)}
    for changed in ("PIL.__version__", "zoo.data.store.decode.VERSION", "zoo.data.batches.maker.VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(changed, "other")
            looks.add(repr(ours.look))
    assert len(looks) == 4
