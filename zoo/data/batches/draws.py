"""Random draws of augmentation, as timm and torchvision draw them.

The same generators give the same numbers as `timm.data.create_transform` with the presets' settings. Generators are
passed in and belong to the caller, so threads can draw at the same time.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import NamedTuple

import torch

RATIO = (3 / 4, 4 / 3)  # of a crop's sides
ERASED = 0.25  # share of images that `strong` erases a rectangle of
_ERASED_AREA = (0.02, 1 / 3)  # timm's RandomErasing
_ERASED_RATIO = (0.3, 1 / 0.3)
_ATTEMPTS = 10

BRIGHTNESS, CONTRAST, SATURATION = range(3)  # as torchvision's ColorJitter numbers them


class Box(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


class Change(NamedTuple):
    """One step of a colour change."""

    kind: int  # BRIGHTNESS, CONTRAST or SATURATION
    factor: float  # 1: no change


def draw_seed(seed: int, epoch: int, sample: str, view: int) -> int:
    """The 64-bit seed of all draws for one view of one sample in one epoch."""
    text = f"{seed}\n{epoch}\n{view}\n{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generators(seed: int) -> tuple[random.Random, torch.Generator]:
    """Python's and torch's generator at the start of a view."""
    torchs = torch.Generator()
    torchs.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    return random.Random(seed), torchs


def crop(height: int, width: int, scale: tuple[float, float], numbers: random.Random) -> Box:
    """The crop of timm's RandomResizedCropAndInterpolation, whose share of the area is within `scale`."""
    logs = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(_ATTEMPTS):
        area = numbers.uniform(*scale) * height * width
        ratio = math.exp(numbers.uniform(*logs))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if wide <= width and high <= height:
            return Box(numbers.randint(0, height - high), numbers.randint(0, width - wide), high, wide)
    # An image so long that nothing fits: its middle.
    wide = min(width, round(height * RATIO[1]))
    high = min(height, round(width / RATIO[0]))
    return Box((height - high) // 2, (width - wide) // 2, high, wide)


def mirrored(probability: float, numbers: torch.Generator) -> bool:
    """Whether torchvision's RandomHorizontalFlip mirrors the image."""
    return probability > 0 and bool(torch.rand(1, generator=numbers) < probability)


def colours(strength: float, numbers: torch.Generator) -> tuple[Change, ...]:
    """The changes of torchvision's ColorJitter, in order; each factor is within `strength` of 1."""
    order = torch.randperm(4, generator=numbers).tolist()  # of four: it counts the hue, which does not change
    factors = [
        float(torch.empty(1).uniform_(max(0.0, 1 - strength), 1 + strength, generator=numbers)) for _ in range(3)
    ]
    return tuple(Change(kind, factors[kind]) for kind in order if kind < len(factors))


def erasure(height: int, width: int, numbers: random.Random) -> Box | None:
    """The rectangle that timm's RandomErasing erases; None if it erases nothing."""
    if numbers.random() > ERASED:
        return None
    logs = math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1])
    for _ in range(_ATTEMPTS):
        area = numbers.uniform(*_ERASED_AREA) * height * width
        ratio = math.exp(numbers.uniform(*logs))
        high, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if wide < width and high < height:
            return Box(numbers.randint(0, height - high), numbers.randint(0, width - wide), high, wide)
    return None
