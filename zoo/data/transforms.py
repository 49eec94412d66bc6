"""From an image to a network's input: timm's evaluation transform, and augmentation presets on timm's own parts.

The presets. All but `none` are timm's training transform (`timm.data.create_transform`) with these settings; the crop's
scale is a share of the image's area, and its aspect ratio is always between 3/4 and 4/3.

| preset   | crop scale  | mirrored | colour                              | also                                |
|----------|-------------|----------|-------------------------------------|-------------------------------------|
| none     | centre crop | never    | as it is                            | the evaluation transform            |
| light    | 0.70 to 1   | half     | as it is                            |                                     |
| standard | 0.35 to 1   | half     | brightness, contrast and saturation |                                     |
|          |             |          | changed by up to a fifth            |                                     |
| strong   | 0.25 to 1   | half     | as RandAugment has it               | RandAugment, rand-m7-mstd0.5-inc1;  |
|          |             |          |                                     | a rectangle of every fourth image   |
|          |             |          |                                     | erased (set to the mean)            |

Mirroring is left out where it changes what an image shows (digits).

Augmentation is a pure function of (seed, epoch, sample id, view): every random generator that timm draws from is seeded
for each sample and put back afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing

from zoo.data.store import Pixels
from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.models import DataConfig

Augment = Literal["none", "light", "standard", "strong"]

_PRESETS: dict[str, dict[str, Any]] = {
    "light": {"scale": (0.7, 1.0), "color_jitter": None},
    "standard": {"scale": (0.35, 1.0), "color_jitter": (0.2, 0.2, 0.2)},
    "strong": {"scale": (0.25, 1.0), "color_jitter": None, "auto_augment": "rand-m7-mstd0.5-inc1"},
}
_RATIO = (3 / 4, 4 / 3)
_ERASED = 0.25  # share of images that `strong` erases a rectangle of


def store_side(config: DataConfig) -> int | None:
    """The short side that evaluation resizes images to, or None when it does not resize by the short side alone.

    It is what `DataOptions.image_size` should be, together with `config.interpolation`, for the decoded store to serve.
    """
    channels, height, width = config.input_size
    if height != width or channels != 3 or config.crop_mode != "center":
        return None
    return math.floor(height / config.crop_pct)


@dataclass(frozen=True)
class View:
    """Makes one image into pixels (H, W, C) uint8 of the input's size, before normalisation."""

    size: tuple[int, int, int]  # (C, H, W)
    side: int | None  # of stored images that it can start from
    interpolation: str
    steps: Callable[[Image.Image], Image.Image]
    evaluation: bool  # a centre crop of a stored image is all there is to do
    erase: RandomErasing | None = None

    def __call__(self, image: Image.Image) -> Pixels:
        """Pixels of an image in its own size."""
        channels = self.size[0]
        if channels == 1:
            image = image.convert("L")
        pixels = np.asarray(self.steps(image))
        return pixels[:, :, None] if channels == 1 else pixels

    def of_stored(self, pixels: Pixels) -> Pixels:
        """Pixels of an image that was resized to `side` before."""
        _, height, width = self.size
        if self.evaluation and pixels.shape[0] >= height and pixels.shape[1] >= width:
            top = round((pixels.shape[0] - height) / 2.0)
            left = round((pixels.shape[1] - width) / 2.0)
            return pixels[top : top + height, left : left + width]
        image = Image.frombuffer("RGB", (pixels.shape[1], pixels.shape[0]), pixels, "raw", "RGB", 0, 1)
        return self(image)


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
    return View(config.input_size, store_side(config), config.interpolation, steps, evaluation=True)


def training_view(config: DataConfig, augment: Augment, hflip: float) -> View:
    """One of the presets.

    Args:
        config: What the network expects.
        augment: "none", "light", "standard" or "strong".
        hflip: Probability of mirroring.

    Raises:
        DataError: There is no such preset.
    """
    if augment not in get_args(Augment):
        raise DataError(f"no augmentation preset {augment!r}", fix=f"choose one of: {', '.join(get_args(Augment))}")
    if augment == "none":
        return evaluation_view(config)
    _check(config)
    crop, colour, _ = create_transform(
        config.input_size,
        is_training=True,
        separate=True,
        ratio=_RATIO,
        hflip=hflip,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        **_PRESETS[augment],
    )
    erase = RandomErasing(_ERASED, mode="const", max_count=1, device="cpu") if augment == "strong" else None
    return View(
        config.input_size,
        store_side(config),
        config.interpolation,
        _Two(crop, colour),
        evaluation=False,
        erase=erase,
    )


@dataclass(frozen=True)
class _Two:
    first: Callable[[Image.Image], Image.Image]
    second: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.second(self.first(image))


def normalised(images: Sequence[Pixels], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Stack images (H, W, C) uint8 into (B, C, H, W) float32, channels last in memory, normalised.

    The arithmetic is that of torchvision's ToTensor and Normalize, on the whole batch at once.
    """
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(torch.float32)
    shape = (1, -1, 1, 1)
    return batch.div_(255).sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


def draw_seed(seed: int, epoch: int, sample: str, view: int) -> int:
    """The 64-bit seed of everything random about one view of one sample in one epoch."""
    text = f"{seed}\n{epoch}\n{view}\n{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def seed_all(seed: int) -> None:
    """Seed the three generators that transforms draw from."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # Not torch.manual_seed: that would also seed every accelerator.
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Put Python's, NumPy's and torch's global generators back as they were when the block ends."""
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
