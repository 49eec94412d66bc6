"""Batches: their order from (seed, epoch), their pixels from (seed, epoch, sample, view), whoever makes them."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch.utils.data import DataLoader

from zoo.data.batches import Batch, Key, Maker
from zoo.data.part import Part
from zoo.data.records import BadImage
from zoo.data.transforms import (
    Augment,
    draw_seed,
    evaluation_view,
    training_view,
)
from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.models import DataConfig

Balance = Literal["none", "weights", "sampler"]


class TrainLoader:
    """Training batches of one process, epoch by epoch. Made by `train_loader`."""

    def __init__(
        self, maker: Maker, *, batch_size: int, balance: Balance, workers: int, rank: int, world: int, pin: bool
    ) -> None:
        self._maker = maker
        self._batch_size = batch_size
        self._balance = balance
        self._workers = workers
        self._rank = rank
        self._world = world
        self._pin = pin
        self._plan = _Plan()
        self._loader: DataLoader[Batch] | None = None
        self.skipped: dict[str, BadImage] = {}  # unreadable images met so far, where the part says to skip them

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch: the last, incomplete one is left out unless it is the only one."""
        return max(1, len(self._maker.part) // self._batch_size)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This process's slice of every global batch of an epoch.

        Args:
            epoch: Any number; with the seed it decides order and augmentation, and nothing else does.
            start_step: Batches at the start that are left out, without reading them.

        Raises:
            DataError: An image cannot be read, and the part does not say to skip such.
        """
        plan = self.keys(epoch, start_step)
        if self._workers == 0:
            batches: Iterator[Batch] = (self._maker.make(keys) for keys in plan)
        else:
            self._plan.batches = plan
            if self._loader is None:
                self._loader = _worker_loader(self._maker, self._plan, self._workers, persistent=True, pin=self._pin)
            batches = iter(self._loader)
        for batch in batches:
            _refuse(batch, self._maker.part)
            self.skipped.update({bad.path: bad for bad in batch.skipped})
            yield batch

    def keys(self, epoch: int, start_step: int = 0) -> list[list[Key]]:
        """What the batches of `epoch` are made of: which view of which image."""
        return [_slice(keys, self._rank, self._world) for keys in self._keys(epoch)[start_step:]]

    def every(self, epoch: int, batch_size: int) -> EvaluationLoader:
        """Every image once, in the part's order, as it looks in an epoch: the same batches in every process."""
        return EvaluationLoader(self._maker, batch_size=batch_size, workers=self._workers, rank=0, world=1, epoch=epoch)

    @property
    def random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self._maker.random

    @property
    def look(self) -> tuple[object, ...]:
        """All that decides, beside the epoch, how an image looks; it prints the same where that is the same."""
        return self._maker.look

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._loader = None

    def _keys(self, epoch: int) -> list[list[Key]]:
        part = self._maker.part
        count = len(part)
        generator = torch.Generator()
        generator.manual_seed(draw_seed(self._maker.seed, epoch, "order", 0) & 0x7FFFFFFFFFFFFFFF)
        if self._balance == "sampler":
            sizes = part.class_counts()
            weights = torch.tensor([1.0 / sizes[label] for label in part.labels], dtype=torch.float64)
            order = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        else:
            order = torch.randperm(count, generator=generator).tolist()
        # An image drawn again in the same epoch is seen in another view.
        times: Counter[int] = Counter()
        keys = []
        for index in order:
            keys.append(Key(epoch, index, times[index]))
            times[index] += 1
        size = min(self._batch_size, count)
        return [keys[step * size : (step + 1) * size] for step in range(self.steps_per_epoch)]


class EvaluationLoader:
    """Batches of every image once, in the part's order. Iterating again starts again."""

    def __init__(self, maker: Maker, *, batch_size: int, workers: int, rank: int, world: int, epoch: int = 0) -> None:
        keys = [Key(epoch, index, 0) for index in range(len(maker.part))]
        whole = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        slices = [_slice(batch, rank, world) for batch in whole]
        self._batches = [batch for batch in slices if batch]
        self._maker = maker
        self._workers = workers
        self._loader: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self._batches)

    def every(self, batch_size: int) -> EvaluationLoader:
        """The same images in batches of another size: the same batches in every process."""
        return EvaluationLoader(self._maker, batch_size=batch_size, workers=self._workers, rank=0, world=1)

    @property
    def keys(self) -> list[list[Key]]:
        """What this process's batches are made of."""
        return self._batches

    @property
    def look(self) -> tuple[object, ...]:
        """As for a `TrainLoader`."""
        return self._maker.look

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            DataError: An image cannot be read, and the part does not say to skip such.
        """
        for batch in self._made():
            _refuse(batch, self._maker.part)
            yield batch

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._loader = None

    def _made(self) -> Iterator[Batch]:
        view = self._maker.view
        if self._workers > 0:
            if self._loader is None:
                plan = _Plan(self._batches)
                self._loader = _worker_loader(self._maker, plan, self._workers, persistent=True)
            yield from self._loader
        elif self._maker.random or self._maker.part.has_store(view.side, view.interpolation):
            yield from map(self._maker.make, self._batches)
        else:
            yield from self._in_threads()

    def _in_threads(self) -> Iterator[Batch]:
        """Decode ahead in threads: nothing here draws random numbers, and decoders let other threads run."""
        count = cores()
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(count, thread_name_prefix="zoo-decode") as pool:
            try:
                for keys in self._batches:
                    waiting.append(pool.submit(self._maker.make, keys))
                    if len(waiting) > count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def train_loader(
    part: Part,
    *,
    config: DataConfig,
    augment: Augment,
    batch_size: int,
    seed: int,
    balance: Balance = "none",
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    hflip: float | None = None,
    pin: bool = False,
) -> TrainLoader:
    """Batches to train on.

    Order depends on (seed, epoch) and pixels on (seed, epoch, sample, view): neither on `workers` nor on `world`.

    Args:
        part: The images.
        config: What the network expects of its input.
        augment: A preset of `zoo.data.transforms`.
        batch_size: Images of a global batch; each of `world` processes takes its share of it.
        seed: Of order and augmentation.
        balance: "sampler" draws images so that classes come equally often; "none" and "weights" take each image once.
        workers: Processes that make batches; 0 makes them in this one.
        rank: This process's number, from 0.
        world: Processes that share each batch.
        hflip: Probability of mirroring; None is a half, or nothing where mirroring changes what an image shows.
        pin: Whether workers' batches go into pinned memory, for a GPU to fetch.

    Raises:
        DataError: The batch cannot be shared out among the processes, or a choice is not known.
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
    maker = Maker(part, view, tuple(config.mean), tuple(config.std), seed, random=not view.evaluation)
    return TrainLoader(maker, batch_size=batch_size, balance=balance, workers=workers, rank=rank, world=world, pin=pin)


def eval_batches(
    part: Part, *, config: DataConfig, batch_size: int, workers: int = 0, rank: int = 0, world: int = 1
) -> EvaluationLoader:
    """Every image once, through timm's evaluation transform, none left out and none twice.

    With several processes each takes its slice of every batch; a process may have one batch less than another.

    Args:
        part: The images.
        config: What the network expects of its input.
        batch_size: Images of a global batch.
        workers: Processes that make batches; 0 makes them in this one.
        rank: This process's number, from 0.
        world: Processes that share each batch.
    """
    maker = Maker(part, evaluation_view(config), tuple(config.mean), tuple(config.std), 0, random=False)
    return EvaluationLoader(maker, batch_size=batch_size, workers=workers, rank=rank, world=world)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def auto_workers(device_type: str, available: int) -> int:
    """Worker processes to use when nobody chose.

    Measured with the decoded store, processor time of one AVX-512 core per image. At 224 pixels (hymenoptera.zip) it
    takes 0.8 ms without augmentation, 1.7 light, 2.3 standard, 2.7 strong; training mobilenetv2_100 takes 61 ms. At 64
    pixels (cifar10.zip) it takes 0.05, 0.2, 0.4 and 0.45 ms; training test_resnet takes 1.0 ms. So on a small processor
    workers would only take cores from the training; on a large one they begin to be worth theirs, and an accelerator
    outruns one core.

    Args:
        device_type: "cpu", "cuda", "mps", ….
        available: Processor cores.
    """
    if device_type == "cpu":
        return min(4, available // 8)
    return max(0, min(8, available - 1))


@dataclass
class _Plan:
    """The batches that the next pass over a loader makes; kept in the main process."""

    batches: list[list[Key]] = field(default_factory=list)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Indexed:
    """A maker as torch's loader wants it: batches by `__getitems__`."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __getitem__(self, key: Key) -> Batch:
        return self._maker.make([key])

    def __getitems__(self, keys: list[Key]) -> Batch:
        return self._maker.make(keys)


def _worker_loader(
    maker: Maker, plan: _Plan, workers: int, *, persistent: bool, pin: bool = False
) -> DataLoader[Batch]:
    return DataLoader(
        _Indexed(maker),  # type: ignore[arg-type]
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
        persistent_workers=persistent,
        prefetch_factor=4,
        pin_memory=pin,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _slice(keys: Sequence[Key], rank: int, world: int) -> list[Key]:
    """One process's contiguous share of a batch; the first ones take what does not divide."""
    each, rest = divmod(len(keys), world)
    start = rank * each + min(rank, rest)
    return list(keys[start : start + each + (1 if rank < rest else 0)])


def _refuse(batch: Batch, part: Part) -> None:
    if not batch.skipped:
        return
    if part.on_bad_image == "error" or not len(batch):
        first = batch.skipped[0]
        raise DataError(
            f"the image {first.path} cannot be read",
            why=first.error,
            fix="repair or remove it, or leave such images out with --on-bad-image skip",
        )
