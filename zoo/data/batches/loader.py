"""Loaders: batches ordered by (seed, epoch), pixels by (seed, epoch, sample, view)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch

from zoo.data.batches.draws import draw_seed
from zoo.data.batches.feed import Feed
from zoo.data.batches.maker import Batch, Key, Maker
from zoo.data.batches.views import Augment, evaluation_view, store_side, training_view
from zoo.data.part import Part
from zoo.data.targets import draw_weights
from zoo.data.types import BadImage
from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.models.preprocessing import DataConfig

CPU = torch.device("cpu")
MEASURED = 16  # images whose loading is timed

Balance = Literal["none", "weights", "sampler"]


class _Loader:
    """Batches from a feed, checked for unreadable images."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._part = feed.maker.part
        self.skipped: dict[str, BadImage] = {}  # unreadable images so far, if the part skips them

    @property
    def look(self) -> tuple[object, ...]:
        """What decides how an image looks, except the epoch; equal looks print the same."""
        return self._feed.maker.look

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._feed.close()

    def _checked(self, keys: list[list[Key]]) -> Iterator[Batch]:
        for batch in self._feed.batches(keys):
            if batch.skipped and (self._part.on_bad_image == "error" or not len(batch)):
                raise DataError(
                    f"the image {batch.skipped[0].path} cannot be read",
                    why=batch.skipped[0].error,
                    fix="repair or remove it, or leave such images out with --on-bad-image skip",
                )
            self.skipped.update({bad.path: bad for bad in batch.skipped})
            yield batch

    def _every(self, epoch: int, batch_size: int) -> EvaluationLoader:
        feed = Feed(self._feed.maker, self._feed.workers, self._feed.device)
        return EvaluationLoader(feed, batch_size=batch_size, rank=0, world=1, epoch=epoch)


class TrainLoader(_Loader):
    """Training batches of one process, epoch by epoch. Made by `train_loader`."""

    def __init__(self, feed: Feed, weights: list[float] | None, *, batch_size: int, rank: int, world: int) -> None:
        super().__init__(feed)
        self._weights = weights  # how often each image is drawn; None: each once
        self._batch_size, self._rank, self._world = batch_size, rank, world

    @property
    def steps_per_pass(self) -> int:
        """Global batches that take each image once; a last, incomplete one is left out unless it is the only one."""
        return max(1, len(self._part) // self._batch_size)

    def epoch(self, epoch: int, start_step: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """This process's slice of an epoch's `steps` global batches (None: a pass over the images), from `start_step`.

        Only the seed and the number `epoch` decide order and augmentation; batches before `start_step` are not read.
        Raises DataError if an image cannot be read and the part does not skip such images.
        """
        yield from self._checked(self.keys(epoch, start_step, steps))

    def keys(self, epoch: int, start_step: int = 0, steps: int | None = None) -> list[list[Key]]:
        """The image views in each batch of `epoch`; if epochs are not whole passes, passes run on across epochs."""
        batches: list[list[Key]] = []
        each = steps or self.steps_per_pass
        start, end = epoch * each + start_step, (epoch + 1) * each
        while start + len(batches) < end:
            number, offset = divmod(start + len(batches), self.steps_per_pass)
            batches += self._pass(number)[offset : offset + end - start - len(batches)]
        return [_slice(keys, self._rank, self._world) for keys in batches]

    def every(self, epoch: int, batch_size: int) -> EvaluationLoader:
        """Every image once, in the part's order, as it looks in an epoch: the same batches in every process."""
        return self._every(epoch, batch_size)

    @property
    def random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self._feed.maker.view.random

    @property
    def ahead(self) -> bool:
        """Whether batches are made in the background."""
        return self._feed.ahead

    def seconds_per_image(self) -> float:
        """Time between two images when nothing else is waited for, measured on a few."""
        return self._feed.seconds_per_image(list(chain.from_iterable(self.keys(0)))[:MEASURED])

    def _pass(self, number: int) -> list[list[Key]]:
        """The batches of one pass over the images; its number is the epoch if epochs are as long."""
        count = len(self._part)
        generator = torch.Generator()
        generator.manual_seed(draw_seed(self._feed.maker.seed, number, "order", 0) & 0x7FFFFFFFFFFFFFFF)
        if self._weights is not None:
            weights = torch.tensor(self._weights, dtype=torch.float64)
            order = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        else:
            order = torch.randperm(count, generator=generator).tolist()
        # An image drawn again in the same pass is seen in another view.
        times: Counter[int] = Counter()
        keys = []
        for index in order:
            keys.append(Key(number, index, times[index]))
            times[index] += 1
        size = min(self._batch_size, count)
        return [keys[step * size : (step + 1) * size] for step in range(self.steps_per_pass)]


class EvaluationLoader(_Loader):
    """Batches of every image once, in the part's order. Iterating again starts from the first."""

    def __init__(self, feed: Feed, *, batch_size: int, rank: int, world: int, epoch: int = 0) -> None:
        super().__init__(feed)
        keys = [Key(epoch, index, 0) for index in range(len(self._part))]
        batches = (keys[start : start + batch_size] for start in range(0, len(keys), batch_size))
        self.keys = list(filter(None, (_slice(batch, rank, world) for batch in batches)))  # of this process's batches

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self.keys)

    def every(self, batch_size: int) -> EvaluationLoader:
        """The same images in batches of another size: the same batches in every process."""
        return self._every(0, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches. Raises DataError if an image cannot be read and the part does not skip such images."""
        return self._checked(self.keys)


def train_loader(
    part: Part,
    *,
    config: DataConfig,
    augment: Augment,
    batch_size: int,
    seed: int,
    balance: Balance = "none",
    temperature: float = 1.0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    hflip: float | None = None,
    device: torch.device = CPU,
) -> TrainLoader:
    """Training batches; order and pixels depend neither on `workers` nor on `world`.

    Each of `world` processes takes its share of `batch_size`. `balance="sampler"` draws classes equally often;
    `temperature` other than 1 draws tasks in proportion to their size to this power. `hflip`: probability of mirroring;
    None: a half, or 0 if mirroring changes what an image shows. Raises DataError for an unknown `balance`, or if
    batch or images cannot be shared among the processes.
    """
    if balance not in ("none", "weights", "sampler"):
        raise DataError(f"no way of balancing {balance!r}", fix="choose none, weights or sampler")
    if batch_size < 1 or batch_size % world:
        raise DataError(
            f"a batch of {batch_size} cannot be shared equally by {world} process(es)",
            fix=f"choose a multiple of {world}, such as {max(world, batch_size // world * world)}",
        )
    if len(part) < world:
        raise DataError(f"{len(part)} image(s) are too few for {world} processes", fix="use fewer processes")
    flip = hflip if hflip is not None else (0.5 if part.hflip else 0.0)
    view = training_view(config, augment, flip)
    maker = Maker(part, view, tuple(config.mean), tuple(config.std), seed, resizing=device.type != "cpu")
    weights = None
    if temperature != 1.0:
        weights = draw_weights(part.tasks, part.targets, temperature)
    elif balance == "sampler":
        sizes = part.class_counts()
        weights = [1.0 / sizes[label] for label in part.truth().tolist()]
    return TrainLoader(Feed(maker, workers, device), weights, batch_size=batch_size, rank=rank, world=world)


def eval_batches(
    part: Part,
    *,
    config: DataConfig,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device = CPU,
) -> EvaluationLoader:
    """Every image exactly once, through timm's evaluation transform.

    Each of `world` processes takes its slice of every batch of `batch_size`, so one may have a batch less than another.
    """
    maker = Maker(part, evaluation_view(config), tuple(config.mean), tuple(config.std), 0)
    return EvaluationLoader(Feed(maker, workers, device), batch_size=batch_size, rank=rank, world=world)


def auto_workers(device_type: str, available: int, *, quick: bool) -> int:
    """Default number of worker processes; `quick`: views are computed in batches from the decoded store.

    On a CPU they would take cores from the training, which needs a fraction of a millisecond for a stored view at 224
    pixels, and decodes in threads. An accelerator outruns one core unless stored pixels need only be copied.
    """
    if device_type == "cpu":
        return min(4, available // 8)
    return 0 if quick else max(0, min(8, available - 1))


def is_quick(part: Part, config: DataConfig, augment: Augment) -> bool:
    """Whether training views of these images are computed in batches from the decoded store."""
    return training_view(config, augment, 0.0).batched and part.is_stored(store_side(config), config.interpolation)


def _slice(keys: Sequence[Key], rank: int, world: int) -> list[Key]:
    """One process's contiguous share of a batch; the first processes take the remainder."""
    each, remainder = divmod(len(keys), world)
    start = rank * each + min(rank, remainder)
    return list(keys[start : start + each + (rank < remainder)])
