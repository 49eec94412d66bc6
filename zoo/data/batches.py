"""One batch: from keys that say which view of which image, to tensors, in any process or thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from zoo.data.decode import decode
from zoo.data.part import Part
from zoo.data.records import BadImage
from zoo.data.transforms import View, draw_seed, generators_kept, normalised, seed_all


@dataclass(frozen=True)
class Batch:
    """Some images and their labels."""

    images: torch.Tensor  # (B, C, H, W) float32, normalised, channels last in memory
    labels: torch.Tensor  # (B,) int64
    indices: torch.Tensor  # (B,) int64, positions in the part
    skipped: tuple[BadImage, ...] = ()  # unreadable images left out, where the part says to skip them

    def __len__(self) -> int:
        """Images."""
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """The same in memory that the system does not move, from where a GPU fetches it while it computes."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


class Key(NamedTuple):
    """Which view of which image: all that a stateless worker needs to know."""

    epoch: int
    position: int
    view: int


@dataclass
class Maker:
    """Makes batches from keys: in this process, in a thread, or in a worker process."""

    part: Part
    view: View
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    random: bool  # whether the view draws random numbers

    @property
    def look(self) -> tuple[object, ...]:
        """All that decides, beside the epoch, how an image looks; it prints the same where that is the same."""
        view = self.view
        drawn = (repr(view.erase), self.seed) if self.random else ()
        return (view.size, view.side, view.interpolation, repr(view.steps), self.mean, self.std, *drawn)

    def make(self, keys: list[Key]) -> Batch:
        """One batch; the process's random generators are afterwards as they were before."""
        if not self.random:
            return self._make(keys)
        with generators_kept():
            return self._make(keys)

    def _make(self, keys: list[Key]) -> Batch:
        images, kept, bad = [], [], []
        view = self.view
        for key in keys:
            if self.random:
                seed_all(draw_seed(self.seed, key.epoch, self.part.id(key.position), key.view))
            pixels = None
            if view.side is not None:
                pixels = self.part.stored(key.position, view.side, view.interpolation)
            if pixels is not None:
                images.append(view.of_stored(pixels))
            else:
                try:
                    image = decode(self.part.raw(key.position))
                except (OSError, ValueError) as error:
                    bad.append(BadImage(self.part.id(key.position), str(error)))
                    continue
                images.append(view(image))
            kept.append(key)
        if not images:
            empty = torch.zeros(0, *view.size)
            none = torch.zeros(0, dtype=torch.int64)
            return Batch(empty, none, none, tuple(bad))
        batch = normalised(images, self.mean, self.std)
        if view.erase is not None:
            for row, key in enumerate(kept):
                # A stream of its own: the pixels of other images must not shift this one's draws.
                seed_all(draw_seed(self.seed, key.epoch, self.part.id(key.position), -1 - key.view))
                batch[row] = view.erase(batch[row])
        labels = torch.tensor([self.part.labels[key.position] for key in kept], dtype=torch.int64)
        return Batch(batch, labels, torch.tensor([key.position for key in kept], dtype=torch.int64), tuple(bad))
