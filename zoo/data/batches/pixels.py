"""Pixels in batches (B, C, H, W): resampling, colour, erasing, normalising.

An image's values do not depend on the rest of the batch, the number of threads, or the process: sums are taken in an
order that threads do not change, and resampling uses weights for which float32 sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoo.data.batches.draws import BRIGHTNESS, CONTRAST, SATURATION

_GREY = (0.299, 0.587, 0.114)  # Pillow's weights, ITU-R 601
_EXACT = 1 << 15  # weights are multiples of its inverse: 255 x 1.3 x 2^15 < 2^24, so float32 adds without error


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
"""Pillow's kernels and their radius, by timm's names; Pillow itself does other interpolations, image by image."""


def resample(
    canvas: torch.Tensor, sizes: torch.Tensor, flips: torch.Tensor, size: tuple[int, int], interpolation: str
) -> torch.Tensor:
    """Resize crops of different `sizes` (B, 2) as Pillow does: across, round, down, round; mirror some (`flips`, (B,)).

    Each crop lies at the top left of `canvas` (B, C, H, W) uint8; the rest is ignored. Returns (B, C, *size) float32,
    whole numbers from 0 to 255. `interpolation` is one of `KERNELS`.
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
    """Weights (B, target, room) of `room` input pixels, of which an image fills `sizes` (B,), for each output pixel."""
    kernel, radius = KERNELS[interpolation]
    scale = sizes.to(torch.float32)[:, None, None] / target
    stretch = scale.clamp(min=1)
    centre = (torch.arange(target, device=sizes.device, dtype=torch.float32)[None, :, None] + 0.5) * scale
    place = torch.arange(room, device=sizes.device, dtype=torch.float32)[None, None, :] + 0.5
    # Only pixels of the image and within the kernel's radius count; rounded, so that float32 sums are exact.
    weights = kernel((place - centre) / stretch)
    weights = torch.where((place < sizes[:, None, None]) & ((place - centre).abs() < radius * stretch), weights, 0)
    return (weights / weights.sum(2, keepdim=True)).mul_(_EXACT).round_().div_(_EXACT)


def recolour(values: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast and saturation of `values` (B, C, H, W) float32, whole numbers to 255, in place.

    `changes` (B, steps, 2) float32 has kind and factor of each step of each image. The arithmetic is that of Pillow's
    ImageEnhance, which leaves whole numbers from 0 to 255 after each step.
    """
    for step in range(changes.shape[1]):
        kinds, factors = changes[:, step, 0].view(-1, 1, 1, 1), changes[:, step, 1].view(-1, 1, 1, 1)
        base = _degenerate(values, kinds)
        # Interpolate between the degenerate image (factor 0) and this one (factor 1), or extrapolate.
        if base is None:
            values.mul_(factors)
        else:
            values.sub_(base).mul_(factors).add_(base)
        values.clamp_(0, 255).floor_()
    return values


def _degenerate(values: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor | None:
    """Each image at factor 0: black (None if all are), its mean grey, or its greys."""
    # Reading the kinds of a batch on an accelerator would wait for it.
    present = set(kinds.flatten().tolist()) if kinds.device.type == "cpu" else set()
    if present == {float(BRIGHTNESS)}:
        return None
    if values.shape[1] == 1:
        grey = values.clone()
    else:
        # Product by product: a fused operation would round differently at the ends of each thread's share.
        grey = values[:, :1] * _GREY[0]
        grey.add_(values[:, 1:2] * _GREY[1]).add_(values[:, 2:3] * _GREY[2]).add_(0.5).floor_()
    if present == {float(SATURATION)}:
        return grey
    # Row by row: the sum of all at once would depend on the number of threads.
    mean = (grey.sum(3, keepdim=True).sum(2, keepdim=True) / grey[0].numel()).add_(0.5).floor_()
    if present == {float(CONTRAST)}:
        return mean
    return torch.where(kinds == SATURATION, grey, torch.where(kinds == CONTRAST, mean, 0))


def erase(images: torch.Tensor, boxes: torch.Tensor) -> None:
    """Set a rectangle of each normalised image (B, C, H, W) to 0, the mean, in place.

    `boxes` (B, 4) integers: top, left, height, width; height 0: none.
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
        self._on_device: tuple[torch.Tensor, ...] = self._constants  # on the device of the last batch

    def __getstate__(self) -> dict[str, Any]:
        """Without copies on a device: another process has its own."""
        return {**self.__dict__, "_on_device": self._constants}

    def __call__(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise (B, C, H, W), 0 to 255, into float32, channels last in memory, in `out` if given.

        Float32 input may be overwritten.
        """
        if self._on_device[0].device != values.device:
            self._on_device = tuple(each.to(values.device) for each in self._constants)
        # 255 is a tensor too: an accelerator would multiply by a number's inverse, and round differently.
        whole, mean, std = self._on_device
        batch, channels, height, width = values.shape
        if values.is_contiguous(memory_format=torch.channels_last):
            # As long rows: rows of three numbers would not fill the CPU's wide registers.
            rows = values.permute(0, 2, 3, 1).reshape(batch * height, width * channels).to(torch.float32)
            rows = rows.div_(whole).sub_(mean.repeat(width)).div_(std.repeat(width))
            made = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        else:
            shape = (1, -1, 1, 1)
            made = values.to(torch.float32).div_(whole).sub_(mean.view(shape)).div_(std.view(shape))
        return made.contiguous(memory_format=torch.channels_last) if out is None else out.copy_(made)
