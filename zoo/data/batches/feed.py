"""From keys to finished batches on a device, made ahead of time wherever something can work beside the training.

Who makes the bytes: worker processes where there are some; else threads, where the views allow it and there is
something to gain (an accelerator is busy meanwhile, or images are to be decoded); else the caller. Who makes them
changes nothing about them. On CUDA the next batch is copied from pinned memory and finished on a stream of its own
while the network works on the current one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader

from zoo.data.batches.maker import Batch, Key, Maker, Packed
from zoo.data.types import cores
from zoo.errors import DataError

THREADS = 4  # at most, where all that threads do is copy stored pixels


class Feed:
    """Makes batches of one part.

    Args:
        maker: Makes one batch.
        workers: Processes that make batches; 0: none.
        device: Where finished batches are.
    """

    def __init__(self, maker: Maker, workers: int, device: torch.device) -> None:
        self.maker = maker
        self._workers = workers
        self._device = device
        self._plan = _Plan()
        self._loader: DataLoader[Packed] | None = None

    @property
    def threads(self) -> int:
        """Threads that make batches ahead; 0: the caller makes each when it asks for it."""
        if self._workers or not self.maker.view.batched:
            return 0
        if not self.maker.is_stored:
            return cores()
        return 0 if self._device.type == "cpu" else min(THREADS, cores())

    @property
    def ahead(self) -> bool:
        """Whether batches are made while something else works."""
        return self._workers > 0 or self.threads > 0

    def seconds_per_image(self, keys: list[Key]) -> float:
        """Measured time between two images, shared out among those who make them."""
        helpers = max(1, self._workers or self.threads)
        made, finished = [], []
        for _ in range(3):  # the first pays for what later ones find ready, and another program may slow one down
            started = time.perf_counter()
            packed = self.maker.make(keys)
            between = time.perf_counter()
            if self._device.type == "cpu":  # an accelerator does this beside its other work
                self.maker.finish(packed, self._device)
            made.append((between - started) / helpers)
            finished.append(time.perf_counter() - between)
        return (min(made) + min(finished)) / len(keys)

    def batches(self, plan: list[list[Key]]) -> Iterator[Batch]:
        """The batches of a plan, in its order."""
        if self._workers:
            packed = self._by_workers(plan)
        elif self.threads:
            packed = self._by_threads(plan, self.threads)
        else:
            packed = map(self.maker.make, plan)
        if self._device.type == "cuda":
            return self._on_cuda(packed)
        return (self.maker.finish(each, self._device) for each in packed)

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._loader = None

    def _by_workers(self, plan: list[list[Key]]) -> Iterator[Packed]:
        self._plan.batches = plan
        if self._loader is None:
            self._loader = DataLoader(
                _Indexed(self.maker),  # type: ignore[arg-type]
                batch_sampler=self._plan,
                num_workers=self._workers,
                collate_fn=_as_it_is,  # type: ignore[arg-type]
                persistent_workers=True,
                prefetch_factor=4,
                pin_memory=self._device.type == "cuda",
            )
        return _from_workers(self._loader)

    def _by_threads(self, plan: list[list[Key]], threads: int) -> Iterator[Packed]:
        waiting: deque[Future[Packed]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="zoo-data") as pool:
            try:
                for keys in plan:
                    waiting.append(pool.submit(self._made, keys))
                    if len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _made(self, keys: list[Key]) -> Packed:
        packed = self.maker.make(keys)
        return packed.pin_memory() if self._device.type == "cuda" else packed

    def _on_cuda(self, packed: Iterable[Packed]) -> Iterator[Batch]:
        """Finish each batch on a side stream, one ahead of the one that is given out."""
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        waiting: tuple[Batch, torch.cuda.Event] | None = None
        for each in packed:
            pinned = each if each.pixels.is_pinned() else each.pin_memory()
            with torch.cuda.stream(side):
                batch = self.maker.finish(pinned, self._device)
                event = side.record_event()
            if waiting is not None:
                yield self._handed_over(*waiting)
            waiting = batch, event
        if waiting is not None:
            yield self._handed_over(*waiting)

    def _handed_over(self, batch: Batch, event: torch.cuda.Event) -> Batch:
        """The batch, for the current stream: it waits for the side stream, the processor waits for neither."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in (batch.images, batch.labels):
            tensor.record_stream(current)  # its memory may not be given away while this stream reads it
        return batch


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

    def __getitem__(self, key: Key) -> Packed:
        return self._maker.make([key])

    def __getitems__(self, keys: list[Key]) -> Packed:
        return self._maker.make(keys)


def _from_workers(loader: DataLoader[Packed]) -> Iterator[Packed]:
    """What worker processes make.

    Torch would tell of a worker's death by an exception at whatever instruction the training stands, in the middle of a
    step too. Without its handler it is noticed at the next batch, a few seconds later, where nothing is half done.

    Raises:
        DataError: A worker was killed.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    try:
        batches = iter(loader)
        if before is not None:
            signal.signal(signal.SIGCHLD, before)
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that loads images was killed",
            why=f"often because memory ran out; torch says: {' '.join(str(error).split())}",
            fix="use fewer of them, or none: --workers 0",
        ) from error


def _as_it_is(packed: Packed) -> Packed:
    return packed
