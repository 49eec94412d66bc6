"""Maker: one batch of tensors from keys (which view of which image).

`Maker.make` reads and draws, in any process or thread, and gives bytes. `Maker.finish` turns these into a network's
input, on its device: an accelerator resizes crops there, on the CPU each was resized when it was read. Colour,
normalisation and erasing always come last.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from torch.nn import functional
from torchvision.transforms import functional as pictures

from zoo.data.batches import draws, pixels
from zoo.data.batches.draws import Box, Change
from zoo.data.batches.views import View, as_pixels, in_channels, restored_generators, seed_all
from zoo.data.part import Part
from zoo.data.store.decode import Pixels, decode, decoding
from zoo.data.types import BadImage

VERSION = 1
"""Increased when the pixels that a `Maker` gives for a view change, so that cached features are made again."""

_CACHED = 200_000  # numbers that fit into a core's cache, with a few more arrays of the same size


@dataclass(frozen=True)
class Unlabelled:
    """Unlabelled images, in one or more views of each."""

    views: tuple[torch.Tensor, ...]  # each (B, C, H, W) float32, normalised, the same images in the same order
    indices: torch.Tensor  # (B,) int64, positions in the part; never on an accelerator

    def to(self, device: torch.device) -> Unlabelled:
        """A copy with its images on a device."""
        return replace(self, views=tuple(view.to(device, non_blocking=True) for view in self.views))


@dataclass(frozen=True)
class Batch:
    """Images and their labels."""

    images: torch.Tensor  # (B, C, H, W) float32, normalised, channels last in memory, on the device
    labels: torch.Tensor  # (B,) int64, on the device; with tasks (B, columns) float32
    indices: torch.Tensor  # (B,) int64, positions in the part; never on an accelerator
    skipped: tuple[BadImage, ...] = ()  # unreadable images left out, if the part skips them
    unlabelled: Unlabelled | None = None  # images alongside, if the objective uses some

    def __len__(self) -> int:
        """Images."""
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """A copy with its images and labels on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device),
        )

    def pin_memory(self) -> Batch:
        """A copy in pinned memory, which a GPU reads while it computes."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


class Key(NamedTuple):
    """Which view of which image: all that a stateless worker needs."""

    epoch: int
    position: int
    view: int


@dataclass(frozen=True)
class Packed:
    """A batch before `Maker.finish`: bytes, and what is left to do with them."""

    pixels: torch.Tensor  # (B, C, H, W) uint8
    labels: torch.Tensor  # (B,) int64, or (B, columns) float32
    indices: torch.Tensor  # (B,) int64
    sizes: torch.Tensor | None = None  # (B, 2) float32, rows and columns of crops to be resized
    flips: torch.Tensor | None = None  # (B,) bool, which of these to mirror
    changes: torch.Tensor | None = None  # (B, steps, 2) float32, see `pixels.recolour`
    erased: torch.Tensor | None = None  # (B, 4) int32, see `pixels.erase`
    skipped: tuple[BadImage, ...] = ()

    def pin_memory(self) -> Packed:
        """A copy in pinned memory, from which CUDA copies without waiting."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> Packed:
        """A copy on a device except for its indices; from pinned memory it is asynchronous."""
        return replace(self._mapped(lambda tensor: tensor.to(device, non_blocking=True)), indices=self.indices)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Packed:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
        return Packed(**values | tensors)


class _Piece(NamedTuple):
    """One image of a batch."""

    pixels: Pixels  # (H, W, C)
    flip: bool = False  # whether `Maker.finish` mirrors it
    changes: tuple[Change, ...] = ()
    erased: Box | None = None


def resized_crop(image: Pixels, box: Box, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """A crop of an image (H, W, C), resized to (C, *size) uint8 as timm's transform does, except for rounding."""
    part = image[box.top : box.top + box.height, box.left : box.left + box.width]
    if interpolation not in pixels.KERNELS:
        grey = part.shape[2] == 1
        made = Image.fromarray(part[:, :, 0] if grey else part)
        made = pictures.resize(made, list(size), str_to_interp_mode(interpolation))
        return torch.from_numpy(np.array(made).reshape(*size, -1)).permute(2, 0, 1)
    tensor = torch.from_numpy(np.array(part, order="C")).permute(2, 0, 1)[None]
    if (box.height, box.width) == size:
        return tensor[0]
    return functional.interpolate(tensor, size, mode=interpolation, antialias=True)[0]


class Maker:
    """Makes batches of a part's images as `view` shows them, normalised by each channel's `mean` and `std`.

    `seed` decides everything random. `resizing`: crops are resized in `finish`, as suits an accelerator.
    """

    def __init__(
        self,
        part: Part,
        view: View,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        *,
        resizing: bool = False,
    ) -> None:
        self.part, self.view, self.seed = part, view, seed
        self._statistics = mean, std
        self._normalise = pixels.Normaliser(mean, std)
        self._resizes_later = (
            resizing and view.steps is None and view.side is not None and view.interpolation in pixels.KERNELS
        )

    @property
    def look(self) -> tuple[object, ...]:
        """What decides how an image looks, except the epoch; equal looks print the same."""
        versions = (VERSION, *decoding())
        seed = (self.seed,) if self.view.random else ()
        return (versions, repr(self.view), self._resizes_later, self._statistics, *seed)

    @property
    def is_stored(self) -> bool:
        """Whether nearly all images come from the decoded store."""
        return self.part.is_stored(self.view.side, self.view.interpolation)

    def make(self, keys: list[Key]) -> Packed:
        """The bytes of one batch. Leaves the process's random generators as they were."""
        with contextlib.nullcontext() if self.view.batched else restored_generators():
            pieces, readable, bad = [], [], []
            for key in keys:
                try:
                    pieces.append(self._piece(key))
                except (OSError, ValueError) as error:
                    bad.append(BadImage(self.part.id(key.position), str(error)))
                else:
                    readable.append(key)
        return self._pack(pieces, readable, tuple(bad))

    @torch.no_grad()
    def finish(self, packed: Packed, device: torch.device) -> Batch:
        """Turn a batch's bytes into the network's input, on its device, without waiting for the device."""
        packed = packed.to(device)
        values, changes = packed.pixels, packed.changes
        with torch.autocast(device.type, enabled=False):
            if packed.sizes is not None and packed.flips is not None:
                size = self.view.size[1], self.view.size[2]
                values = pixels.resample(values, packed.sizes, packed.flips, size, self.view.interpolation)
            if device.type == "cpu" and self.view.steps is None:
                # A few images at a time, so that they stay in the CPU's cache.
                images = torch.empty(values.shape, memory_format=torch.channels_last)
                few = max(1, _CACHED // math.prod(self.view.size))
                for start in range(0, len(values), few):
                    rows = slice(start, start + few)
                    some = values[rows].to(torch.float32)
                    some = some if changes is None else pixels.recolour(some, changes[rows])
                    self._normalise(some, out=images[rows])
            else:
                if changes is not None:
                    values = pixels.recolour(values.to(torch.float32), changes)
                images = self._normalise(values)
            if packed.erased is not None:
                pixels.erase(images, packed.erased)
        return Batch(images, packed.labels, packed.indices, packed.skipped)

    def _piece(self, key: Key) -> _Piece:
        view, sample = self.view, self.part.id(key.position)
        seed = draws.draw_seed(self.seed, key.epoch, sample, key.view)
        if view.steps is None:
            return self._crop(self._source(key.position), seed)
        if view.random:
            seed_all(seed)
        made = view.of(self._source(key.position))
        if not view.erases:
            return _Piece(made)
        # Its own generator: what the steps drew must not shift these draws.
        numbers, _ = draws.generators(draws.draw_seed(self.seed, key.epoch, sample, -1 - key.view))
        return _Piece(made, erased=draws.erasure(view.size[1], view.size[2], numbers) or Box(0, 0, 0, 0))

    def _crop(self, source: Pixels, seed: int) -> _Piece:
        view, size = self.view, (self.view.size[1], self.view.size[2])
        numbers, torchs = draws.generators(seed)
        box = draws.crop(source.shape[0], source.shape[1], view.scale, numbers)
        flip = draws.mirrored(view.hflip, torchs)
        changes = draws.colours(view.jitter, torchs) if view.jitter else ()
        if self._resizes_later and min(source.shape[:2]) == view.side:
            part = source[box.top : box.top + box.height, box.left : box.left + box.width]
            return _Piece(part, flip=flip, changes=changes)
        made = resized_crop(source, box, size, view.interpolation)
        made = made.flip(2) if flip else made
        return _Piece(made.permute(1, 2, 0).numpy(), changes=changes)

    def _source(self, position: int) -> Pixels:
        """The image that the view starts from: the same pixels if stored or decoded now."""
        view = self.view
        if view.side is not None:
            stored = self.part.stored(position, view.side, view.interpolation)
            if stored is not None:
                return stored
        image = decode(self.part.raw(position), side=view.side, interpolation=view.interpolation)
        # Steps start from RGB and convert the channels themselves.
        return as_pixels(image if view.steps is not None else in_channels(image, view.size[0]))

    def _pack(self, pieces: list[_Piece], keys: list[Key], bad: tuple[BadImage, ...]) -> Packed:
        labels = self.part.truth([key.position for key in keys])
        indices = torch.tensor([key.position for key in keys], dtype=torch.int64)
        if not pieces:
            return Packed(torch.zeros(0, *self.view.size, dtype=torch.uint8), labels, indices, skipped=bad)
        sizes = flips = None
        if self._resizes_later:
            # Crops of different sizes, each at the top left of a canvas as large as the largest.
            shapes = np.array([piece.pixels.shape for piece in pieces])
            canvas = np.zeros((len(pieces), *shapes.max(0)), dtype=np.uint8)
            for place, piece in zip(canvas, pieces, strict=True):
                place[: piece.pixels.shape[0], : piece.pixels.shape[1]] = piece.pixels
            sizes = torch.from_numpy(shapes[:, :2].astype(np.float32))
            flips = torch.tensor([piece.flip for piece in pieces])
            images = torch.from_numpy(canvas).permute(0, 3, 1, 2)
        elif self.view.steps is None:
            images = torch.stack([torch.from_numpy(piece.pixels).permute(2, 0, 1) for piece in pieces])
        else:
            images = torch.from_numpy(np.stack([piece.pixels for piece in pieces])).permute(0, 3, 1, 2)
        changes = torch.tensor([piece.changes for piece in pieces]) if self.view.jitter else None
        erased = torch.tensor([piece.erased for piece in pieces], dtype=torch.int32) if self.view.erases else None
        return Packed(images, labels, indices, sizes, flips, changes, erased, bad)
