"""Views of an image: timm's evaluation transform, and augmentation presets.

The presets. All but `none` are timm's training transform (`timm.data.create_transform`) with these settings; the crop's
scale is a share of the image's area, and its aspect ratio is always between 3/4 and 4/3.

| preset   | crop scale  | mirrored | colour                              | also                                |
|----------|-------------|----------|-------------------------------------|-------------------------------------|
| none     | centre crop | never    | unchanged                           | the evaluation transform            |
| light    | 0.70 to 1   | half     | unchanged                           |                                     |
| standard | 0.35 to 1   | half     | brightness, contrast and saturation |                                     |
|          |             |          | changed by up to a fifth            |                                     |
| strong   | 0.25 to 1   | half     | as RandAugment has it               | RandAugment, rand-m7-mstd0.5-inc1;  |
|          |             |          |                                     | a rectangle of every fourth image   |
|          |             |          |                                     | erased (set to the mean)            |

Mirroring is left out if it changes what an image shows (digits).

`light` and `standard` are computed by `batches/pixels.py`, in batches on the device, from what `batches/draws.py`
draws: the numbers that timm would draw. `strong` goes through timm image by image, as RandAugment's operations are
Pillow's.

Training crops from the image as evaluation resizes it, whether it comes from the decoded store or is decoded now, so
the store never changes a result. If evaluation takes 224 of 256 pixels, the smallest crop of `light` is about as large
as the input, and that of `standard` is enlarged by half.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from zoo.data.batches.draws import RATIO
from zoo.data.store.decode import Pixels
from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.models.preprocessing import DataConfig

Augment = Literal["none", "light", "standard", "strong"]

_PRESETS: dict[str, dict[str, Any]] = {
    "light": {"scale": (0.7, 1.0), "color_jitter": None},
    "standard": {"scale": (0.35, 1.0), "color_jitter": (0.2, 0.2, 0.2)},
    "strong": {"scale": (0.25, 1.0), "color_jitter": None, "auto_augment": "rand-m7-mstd0.5-inc1"},
}


def store_side(config: DataConfig) -> int | None:
    """The short side that evaluation resizes images to; None if it does not resize by the short side alone.

    The decoded store serves if `DataOptions.image_size` is this and its interpolation is the config's.
    """
    channels, height, width = config.input_size
    if height != width or channels != 3 or config.crop_mode != "center":
        return None
    return math.floor(height / config.crop_pct)


@dataclass(frozen=True)
class View:
    """How one image becomes pixels of the input's size, before normalisation."""

    size: tuple[int, int, int]  # (C, H, W)
    side: int | None  # short side that images are resized to first; None: they keep their size
    interpolation: str
    steps: Callable[[Image.Image], Image.Image] | None  # by Pillow, image by image; None: `pixels` crops
    random: bool = True  # whether it draws random numbers
    scale: tuple[float, float] = (1.0, 1.0)  # of the crop, if there are no steps: share of the area
    hflip: float = 0.0  # probability of mirroring
    jitter: float = 0.0  # most change of brightness, contrast and saturation
    erases: bool = False  # whether some images get a rectangle erased

    @property
    def batched(self) -> bool:
        """Whether threads may make views in parallel: no step draws from the process's own generators."""
        return self.steps is None or not self.random

    def of(self, pixels: Pixels) -> Pixels:
        """Pixels of the input's size, (H, W, C), by `steps`; from (H, W, 3), which has the short side `side` if set."""
        assert self.steps is not None
        channels, height, width = self.size
        rows, columns = pixels.shape[:2]
        if not self.random and min(rows, columns) == self.side and rows >= height and columns >= width:
            top, left = round((rows - height) / 2.0), round((columns - width) / 2.0)
            return pixels[top : top + height, left : left + width]
        image = Image.frombuffer("RGB", (columns, rows), np.ascontiguousarray(pixels), "raw", "RGB", 0, 1)
        return as_pixels(self.steps(in_channels(image, channels)))


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """An RGB image in as many channels as the network has."""
    return image.convert("L") if channels == 1 else image


def as_pixels(image: Image.Image) -> Pixels:
    """An image as (H, W, C) uint8."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def evaluation_view(config: DataConfig) -> View:
    """What timm's evaluation transform does before it normalises."""
    _check(config)
    transform = create_transform(
        config.input_size,
        is_training=False,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
        mean=config.mean,
        use_prefetcher=True,
    )
    # The last step makes a tensor; a batch is converted at once instead.
    steps = type(transform)(transform.transforms[:-1])
    return View(config.input_size, store_side(config), config.interpolation, steps, random=False)


def training_view(config: DataConfig, augment: Augment, hflip: float) -> View:
    """The view of a preset; `hflip`: probability of mirroring. Raises DataError if there is no such preset."""
    if augment not in get_args(Augment):
        raise DataError(f"no augmentation preset {augment!r}", fix=f"choose one of: {', '.join(get_args(Augment))}")
    if augment == "none":
        return evaluation_view(config)
    _check(config)
    preset = _PRESETS[augment]
    basic = config.input_size, store_side(config), config.interpolation
    if "auto_augment" not in preset:
        jitter = preset["color_jitter"][0] if preset["color_jitter"] else 0.0
        return View(*basic, steps=None, scale=preset["scale"], hflip=hflip, jitter=jitter)
    crop, colour, _ = create_transform(
        config.input_size,
        is_training=True,
        separate=True,
        ratio=RATIO,
        hflip=hflip,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        **preset,
    )
    return View(*basic, _Two(crop, colour), erases=True)


@dataclass(frozen=True)
class _Two:  # printed as part of a view, so its names are part of what identifies cached features
    first: Callable[[Image.Image], Image.Image]
    second: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.second(self.first(image))


def seed_all(seed: int) -> None:
    """Seed the three generators that timm's transforms draw from."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # Not torch.manual_seed: that would also seed every accelerator.
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


@contextlib.contextmanager
def restored_generators() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's global generators when the block ends."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _check(config: DataConfig) -> None:
    channels = config.input_size[0]
    if channels not in (1, 3):
        raise DataError(f"the model takes images of {channels} channels", why="images here have 1 (grey) or 3 (RGB)")
    if len(config.mean) != channels or len(config.std) != channels:
        raise DataError(f"mean and std have {len(config.mean)} and {len(config.std)} values for {channels} channels")
