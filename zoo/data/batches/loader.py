"""Batches: their order from (seed, epoch), their pixels from (seed, epoch, sample, view), whoever makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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
MEASURED = 16  # images on which the time to load one is measured

Balance = Literal["none", "weights", "sampler"]


class TrainLoader:
    """Training batches of one process, epoch by epoch. Made by `train_loader`."""

    def __init__(
        self,
        maker: Maker,
        *,
        batch_size: int,
        balance: Balance,
        temperature: float,
        workers: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self._maker = maker
        self._batch_size = batch_size
        self._balance = balance
        self._temperature = temperature
        self._workers = workers
        self._rank = rank
        self._world = world
        self._device = device
        self._feed = Feed(maker, workers, device)
        self.skipped: dict[str, BadImage] = {}  # unreadable images met so far, where the part says to skip them

    @property
    def steps_per_pass(self) -> int:
        """Global batches that take each image once: the last, incomplete one is left out unless it is the only one."""
        return max(1, len(self._maker.part) // self._batch_size)

    def epoch(self, epoch: int, start_step: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """This process's slice of every global batch of an epoch.

        Args:
            epoch: Any number; with the seed it decides order and augmentation, and nothing else does.
            start_step: Batches at the start that are left out, without reading them.
            steps: Batches that an epoch has; None: as many as a pass over the images.

        Raises:
            DataError: An image cannot be read, and the part does not say to skip such.
        """
        for batch in self._feed.batches(self.keys(epoch, start_step, steps)):
            _refuse(batch, self._maker.part)
            self.skipped.update({bad.path: bad for bad in batch.skipped})
            yield batch

    def keys(self, epoch: int, start_step: int = 0, steps: int | None = None) -> list[list[Key]]:
        """What the batches of `epoch` are made of: which view of which image.

        Where an epoch is not one pass over the images, passes follow one another from epoch to epoch.
        """
        found: list[list[Key]] = []
        each = steps or self.steps_per_pass
        at, end = epoch * each + start_step, (epoch + 1) * each
        while at + len(found) < end:
            number, start = divmod(at + len(found), self.steps_per_pass)
            found += self._pass(number)[start : start + end - at - len(found)]
        return [_slice(keys, self._rank, self._world) for keys in found]

    def every(self, epoch: int, batch_size: int) -> EvaluationLoader:
        """Every image once, in the part's order, as it looks in an epoch: the same batches in every process."""
        return EvaluationLoader(
            self._maker, batch_size=batch_size, workers=self._workers, rank=0, world=1, device=self._device, epoch=epoch
        )

    @property
    def random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self._maker.view.random

    @property
    def ahead(self) -> bool:
        """Whether batches are made while something else works."""
        return self._feed.ahead

    def seconds_per_image(self) -> float:
        """Time between two images where nobody else is to be waited for, measured on a few."""
        order = [key for keys in self.keys(0) for key in keys][:MEASURED]
        return self._feed.seconds_per_image(order)

    @property
    def look(self) -> tuple[object, ...]:
        """All that decides, beside the epoch, how an image looks; it prints the same where that is the same."""
        return self._maker.look

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._feed.close()

    def _pass(self, epoch: int) -> list[list[Key]]:
        """The batches that take each image once; its number is the epoch's where epochs are as long."""
        part = self._maker.part
        count = len(part)
        generator = torch.Generator()
        generator.manual_seed(draw_seed(self._maker.seed, epoch, "order", 0) & 0x7FFFFFFFFFFFFFFF)
        weights = self._weights()
        if weights is not None:
            drawn = torch.tensor(weights, dtype=torch.float64)
            order = torch.multinomial(drawn, count, replacement=True, generator=generator).tolist()
        else:
            order = torch.randperm(count, generator=generator).tolist()
        # An image drawn again in the same epoch is seen in another view.
        times: Counter[int] = Counter()
        keys = []
        for index in order:
            keys.append(Key(epoch, index, times[index]))
            times[index] += 1
        size = min(self._batch_size, count)
        return [keys[step * size : (step + 1) * size] for step in range(self.steps_per_pass)]

    def _weights(self) -> list[float] | None:
        """How often each image is drawn; None: each once."""
        part = self._maker.part
        if self._temperature != 1.0:
            return draw_weights(part.tasks, part.targets, self._temperature)
        if self._balance == "sampler":
            sizes = part.class_counts()
            return [1.0 / sizes[label] for label in part.truth().tolist()]
        return None


class EvaluationLoader:
    """Batches of every image once, in the part's order. Iterating again starts again."""

    def __init__(
        self,
        maker: Maker,
        *,
        batch_size: int,
        workers: int,
        rank: int,
        world: int,
        device: torch.device,
        epoch: int = 0,
    ) -> None:
        keys = [Key(epoch, index, 0) for index in range(len(maker.part))]
        whole = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        slices = [_slice(batch, rank, world) for batch in whole]
        self._batches = [batch for batch in slices if batch]
        self._maker = maker
        self._workers = workers
        self._device = device
        self._feed = Feed(maker, workers, device)
        self.skipped: dict[str, BadImage] = {}  # unreadable images met so far, where the part says to skip them

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self._batches)

    def every(self, batch_size: int) -> EvaluationLoader:
        """The same images in batches of another size: the same batches in every process."""
        return EvaluationLoader(
            self._maker, batch_size=batch_size, workers=self._workers, rank=0, world=1, device=self._device
        )

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
        for batch in self._feed.batches(self._batches):
            _refuse(batch, self._maker.part)
            self.skipped.update({bad.path: bad for bad in batch.skipped})
            yield batch

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._feed.close()


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
    """Batches to train on.

    Order depends on (seed, epoch) and pixels on (seed, epoch, sample, view): neither on `workers` nor on `world`.

    Args:
        part: The images.
        config: What the network expects of its input.
        augment: A preset of `zoo.data.batches.views`.
        batch_size: Images of a global batch; each of `world` processes takes its share of it.
        seed: Of order and augmentation.
        balance: "sampler" draws images so that classes come equally often; "none" and "weights" take each image once.
        temperature: With tasks, images are drawn so that these come in proportion to their size to this power; 1 takes
            each image once.
        workers: Processes that make batches; 0 makes them in this one.
        rank: This process's number, from 0.
        world: Processes that share each batch.
        hflip: Probability of mirroring; None is a half, or nothing where mirroring changes what an image shows.
        device: Where batches are wanted.

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
    maker = Maker(part, view, tuple(config.mean), tuple(config.std), seed, resizing=device.type != "cpu")
    return TrainLoader(
        maker,
        batch_size=batch_size,
        balance=balance,
        temperature=temperature,
        workers=workers,
        rank=rank,
        world=world,
        device=device,
    )


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
    """Every image once, through timm's evaluation transform, none left out and none twice.

    With several processes each takes its slice of every batch; a process may have one batch less than another.

    Args:
        part: The images.
        config: What the network expects of its input.
        batch_size: Images of a global batch.
        workers: Processes that make batches; 0 makes them in this one.
        rank: This process's number, from 0.
        world: Processes that share each batch.
        device: Where batches are wanted.
    """
    maker = Maker(part, evaluation_view(config), tuple(config.mean), tuple(config.std), 0)
    return EvaluationLoader(maker, batch_size=batch_size, workers=workers, rank=rank, world=world, device=device)


def auto_workers(device_type: str, available: int, *, quick: bool) -> int:
    """Worker processes to use when nobody chose.

    On a processor they would only take cores from the training: a view that is computed from the decoded store takes a
    fraction of a millisecond at 224 pixels, and what has to be decoded first is decoded in threads. An accelerator
    outruns one core, unless all that is left to do is to copy stored pixels.

    Args:
        device_type: "cpu", "cuda", "mps", ….
        available: Processor cores.
        quick: Whether views are computed in batches from the decoded store.
    """
    if device_type == "cpu":
        return min(4, available // 8)
    return 0 if quick else max(0, min(8, available - 1))


def is_quick(part: Part, config: DataConfig, augment: Augment) -> bool:
    """Whether training views of these images are computed in batches from the decoded store."""
    return training_view(config, augment, 0.0).batched and part.is_stored(store_side(config), config.interpolation)


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
