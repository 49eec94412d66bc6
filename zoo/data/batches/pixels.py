"""Pixels in batches, on any device: resampling, colour, erasing, normalising.

Batches are (B, C, H, W). Values are the same whatever else is in the batch, however many threads compute, and whichever
process does it: sums are taken in an order that no number of threads changes, and resampling in batches uses weights
for which float32 sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from torch.nn import functional
from torchvision.transforms import functional as pictures

from zoo.data.batches.draws import BRIGHTNESS, CONTRAST, SATURATION, Box
from zoo.data.store.segment import Pixels

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow weighs them
_EXACT = 1 << 15  # weights are multiples of its inverse: 255 x 1.3 x 2^15 is below 2^24, so float32 adds without error


def _triangle(x: torch.Tensor) -> torch.Tensor:
    return (1 - x.abs()).clamp_(min=0)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


KERNELS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
"""Pillow's kernels and their radius, by timm's names; other interpolations are Pillow's own work, image by image."""


def resized_crop(pixels: Pixels, box: Box, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """A crop of an image (H, W, C), resized to (C, *size) uint8, as timm's transform does it but for rounding."""
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    if interpolation not in KERNELS:
        grey = part.shape[2] == 1
        image = Image.fromarray(part[:, :, 0] if grey else part)
        image = pictures.resize(image, list(size), str_to_interp_mode(interpolation))
        return torch.from_numpy(np.array(image).reshape(*size, -1)).permute(2, 0, 1)
    tensor = torch.from_numpy(np.array(part, order="C")).permute(2, 0, 1)[None]
    if (box.height, box.width) == size:
        return tensor[0]
    return functional.interpolate(tensor, size, mode=interpolation, antialias=True)[0]


def resample(
    canvas: torch.Tensor, sizes: torch.Tensor, flips: torch.Tensor, size: tuple[int, int], interpolation: str
) -> torch.Tensor:
    """Resize crops of different sizes in one batch, mirror some, as Pillow does it: across, round, down, round.

    Args:
        canvas: (B, C, H, W) uint8; each crop lies at the top left, and what is beside it counts for nothing.
        sizes: (B, 2), rows and columns of each crop.
        flips: (B,) bool.
        size: (rows, columns) of the result.
        interpolation: One of `KERNELS`.

    Returns:
        (B, C, *size) float32, whole numbers from 0 to 255.
    """
    batch, channels, rows, columns = canvas.shape
    values = canvas.to(torch.float32, memory_format=torch.contiguous_format)
    across = _weights(sizes[:, 1], columns, size[1], interpolation)
    across = torch.where(flips[:, None, None], across.flip(1), across)
    down = _weights(sizes[:, 0], rows, size[0], interpolation)
    values = torch.bmm(values.view(batch, channels * rows, columns), across.transpose(1, 2))
    values = values.add_(0.5).floor_().clamp_(0, 255).view(batch, channels, rows, size[1])
    return torch.matmul(down[:, None], values).add_(0.5).floor_().clamp_(0, 255)


def _weights(sizes: torch.Tensor, room: int, target: int, interpolation: str) -> torch.Tensor:
    """(B, target, room): how much each of `room` places gives to each of `target`, of which an image fills `sizes`."""
    kernel, radius = KERNELS[interpolation]
    scale = sizes.to(torch.float32)[:, None, None] / target
    stretch = scale.clamp(min=1)
    centre = (torch.arange(target, device=sizes.device, dtype=torch.float32)[None, :, None] + 0.5) * scale
    place = torch.arange(room, device=sizes.device, dtype=torch.float32)[None, None, :] + 0.5
    weights = kernel((place - centre) / stretch)
    weights = torch.where((place < sizes[:, None, None]) & ((place - centre).abs() < radius * stretch), weights, 0)
    return (weights / weights.sum(2, keepdim=True)).mul_(_EXACT).round_().div_(_EXACT)


def recolour(values: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast and saturation in place, each image by its own factors in its own order.

    The arithmetic is that of Pillow's ImageEnhance, which leaves whole numbers from 0 to 255 after each step.

    Args:
        values: (B, C, H, W) float32, whole numbers from 0 to 255.
        changes: (B, steps, 2) float32: kind and factor of each step.
    """
    for step in range(changes.shape[1]):
        kinds, factors = changes[:, step, 0].view(-1, 1, 1, 1), changes[:, step, 1].view(-1, 1, 1, 1)
        towards = _towards(values, kinds)
        if towards is None:
            values.mul_(factors)
        else:
            values.sub_(towards).mul_(factors).add_(towards)
        values.clamp_(0, 255).floor_()
    return values


def _towards(values: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor | None:
    """What a factor of 0 would leave of each image: black (None where all are), its mean grey, or its greys."""
    # To look at the kinds of a batch on an accelerator would mean to wait for it.
    there = set(kinds.flatten().tolist()) if kinds.device.type == "cpu" else set()
    if there == {float(BRIGHTNESS)}:
        return None
    if values.shape[1] == 1:
        grey = values.clone()
    else:
        # Product by product: one fused operation would round otherwise at the ends of what a thread gets.
        grey = values[:, :1] * _GREY[0]
        grey.add_(values[:, 1:2] * _GREY[1]).add_(values[:, 2:3] * _GREY[2]).add_(0.5).floor_()
    if there == {float(SATURATION)}:
        return grey
    # Row by row: the sum of all at once would depend on the number of threads.
    mean = (grey.sum(3, keepdim=True).sum(2, keepdim=True) / grey[0].numel()).add_(0.5).floor_()
    if there == {float(CONTRAST)}:
        return mean
    return torch.where(kinds == SATURATION, grey, torch.where(kinds == CONTRAST, mean, 0))


def erase(images: torch.Tensor, boxes: torch.Tensor) -> None:
    """Set a rectangle of each image to 0, in place.

    Args:
        images: (B, C, H, W), normalised: 0 is the mean.
        boxes: (B, 4) integers: top, left, height, width; no rows means none.
    """
    rows = torch.arange(images.shape[2], device=images.device)[None, :, None]
    columns = torch.arange(images.shape[3], device=images.device)[None, None, :]
    top, left, height, width = (boxes[:, place, None, None] for place in range(4))
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    images.masked_fill_(inside[:, None], 0)


class Normaliser:
    """(x / 255 - mean) / std, with the arithmetic of torchvision's ToTensor and Normalize to the bit."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._constants = torch.tensor([255.0]), torch.tensor(mean), torch.tensor(std)
        self._there: tuple[torch.Tensor, ...] = self._constants  # the same on the device that was asked for last

    def __getstate__(self) -> dict[str, Any]:
        """Another process sees to its own device."""
        return {**self.__dict__, "_there": self._constants}

    def __call__(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise a batch into float32, channels last in memory.

        Args:
            values: (B, C, H, W), 0 to 255, of any layout. What is float32 already may be overwritten.
            out: Where the result goes, if somewhere.
        """
        if self._there[0].device != values.device:
            self._there = tuple(each.to(values.device) for each in self._constants)
        # A tensor even for the 255: an accelerator would multiply by the inverse of a number, and round otherwise.
        whole, mean, std = self._there
        batch, channels, height, width = values.shape
        if values.is_contiguous(memory_format=torch.channels_last):
            # Long rows of numbers: short ones of three keep the processor from its wide registers.
            rows = values.permute(0, 2, 3, 1).reshape(batch * height, width * channels).to(torch.float32)
            rows = rows.div_(whole).sub_(mean.repeat(width)).div_(std.repeat(width))
            made = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        else:
            shape = (1, -1, 1, 1)
            made = values.to(torch.float32).div_(whole).sub_(mean.view(shape)).div_(std.view(shape))
        return made.contiguous(memory_format=torch.channels_last) if out is None else out.copy_(made)
