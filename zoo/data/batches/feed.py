"""Feed: finished batches on a device, made in the background if it helps.

Bytes are made by worker processes if there are some; else by threads, if the views allow it and it helps (an
accelerator is busy in the meantime, or images must be decoded); else by the caller. The bytes are the same. On CUDA the
next batch is copied from pinned memory and finished on its own stream while the network works on the current one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from zoo.data.batches.maker import Batch, Key, Maker, Packed
from zoo.data.store.scan import in_threads
from zoo.data.types import cores
from zoo.errors import DataError

THREADS = 4  # at most, if threads only copy stored pixels


class Feed:
    """Makes the batches of one part with `workers` processes (0: none), finished on a device."""

    def __init__(self, maker: Maker, workers: int, device: torch.device) -> None:
        self.maker, self.workers, self.device = maker, workers, device
        self._plan: list[list[Key]] = []  # the batches that the next pass over the loader makes
        self._loader: DataLoader[Packed] | None = None

    @property
    def threads(self) -> int:
        """Threads that make batches ahead; 0: the caller makes each."""
        if self.workers or not self.maker.view.batched:
            return 0
        if not self.maker.is_stored:
            return cores()
        return 0 if self.device.type == "cpu" else min(THREADS, cores())

    @property
    def ahead(self) -> bool:
        """Whether batches are made in the background."""
        return self.workers > 0 or self.threads > 0

    def seconds_per_image(self, keys: list[Key]) -> float:
        """Measured time between two images, divided by the workers or threads that make them."""
        helpers = max(1, self.workers or self.threads)
        made, finished = [], []
        for _ in range(3):  # the first warms caches, and another program may slow one down
            started = time.perf_counter()
            packed = self.maker.make(keys)
            between = time.perf_counter()
            if self.device.type == "cpu":  # an accelerator does this alongside its other work
                self.maker.finish(packed, self.device)
            made.append((between - started) / helpers)
            finished.append(time.perf_counter() - between)
        return (min(made) + min(finished)) / len(keys)

    def batches(self, plan: list[list[Key]]) -> Iterator[Batch]:
        """The batches of these keys, in order."""
        if self.workers:
            packed = self._by_workers(plan)
        elif self.threads:
            packed = in_threads(self._make, plan, "zoo-data", threads=self.threads, ahead=self.threads)
        else:
            packed = map(self.maker.make, plan)
        if self.device.type == "cuda":
            return self._on_cuda(packed)
        return (self.maker.finish(each, self.device) for each in packed)

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        self._loader = None

    def _by_workers(self, plan: list[list[Key]]) -> Iterator[Packed]:
        self._plan[:] = plan
        if self._loader is None:
            self._loader = DataLoader(
                _Indexed(self.maker),  # type: ignore[arg-type]
                batch_sampler=self._plan,
                num_workers=self.workers,
                collate_fn=_as_it_is,  # type: ignore[arg-type]
                persistent_workers=True,
                prefetch_factor=4,
                pin_memory=self.device.type == "cuda",
            )
        return _from_workers(self._loader)

    def _make(self, keys: list[Key]) -> Packed:
        packed = self.maker.make(keys)
        return packed.pin_memory() if self.device.type == "cuda" else packed

    def _on_cuda(self, packed: Iterable[Packed]) -> Iterator[Batch]:
        """Finish each batch on a side stream, one ahead of the one that is yielded."""
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        waiting: tuple[Batch, torch.cuda.Event] | None = None
        for each in packed:
            pinned = each if each.pixels.is_pinned() else each.pin_memory()
            with torch.cuda.stream(side):
                batch = self.maker.finish(pinned, self.device)
                event = side.record_event()
            if waiting is not None:
                yield self._handed_over(*waiting)
            waiting = batch, event
        if waiting is not None:
            yield self._handed_over(*waiting)

    def _handed_over(self, batch: Batch, event: torch.cuda.Event) -> Batch:
        """The batch on the current stream, which waits for the side stream; the CPU waits for neither."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for tensor in (batch.images, batch.labels):
            tensor.record_stream(current)  # keeps its memory until this stream has read it
        return batch


class _Indexed:
    """A maker as torch's DataLoader needs it: whole batches by `__getitems__`."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __getitems__(self, keys: list[Key]) -> Packed:
        return self._maker.make(keys)


def _from_workers(loader: DataLoader[Packed]) -> Iterator[Packed]:
    """The batches that worker processes make. Raises DataError if a worker was killed.

    Torch's signal handler would raise at whatever instruction the training is, even within a step. Without it, a killed
    worker is noticed a few seconds later, at the next batch, when nothing is half done.
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
