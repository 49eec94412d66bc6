"""Who makes batches, and what that must not change."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.data.pictures import config, fill, opened
from zoo.data import Dataset, train_loader
from zoo.data.batches import feed
from zoo.data.batches.maker import Key, Packed

CUDA = torch.device("cuda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2})


def fed(found: Dataset, augment: str, *, workers: int = 0, device: torch.device | None = None) -> feed.Feed:
    loader = train_loader(
        found.train, config=config(), augment=augment, batch_size=8, seed=0, workers=workers,  # type: ignore[arg-type]
        device=device or torch.device("cpu"),
    )  # fmt: skip
    return loader._feed


def test_who_makes_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "cores", lambda: 6)
    stored, plain = opened(folder, image_size=20), opened(folder)
    assert fed(stored, "standard").threads == 0  # no core is idle
    assert fed(plain, "standard").threads == 6  # something is to be decoded
    assert fed(stored, "standard", device=CUDA).threads == feed.THREADS
    assert fed(plain, "standard", device=CUDA).threads == 6
    # RandAugment draws from the process's own generators: no threads.
    assert fed(stored, "strong", device=CUDA).threads == fed(plain, "strong").threads == 0
    assert fed(plain, "none", workers=2).threads == 0
    assert fed(plain, "none", workers=2).ahead and fed(plain, "none").ahead and not fed(stored, "none").ahead


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_threads_change_nothing(folder: Path, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "cores", lambda: 3)
    names = set()
    threaded, alone = fed(opened(folder), augment), fed(opened(folder, image_size=20), augment)
    real = threaded.maker.make
    monkeypatch.setattr(
        threaded.maker, "make", lambda keys: (names.add(threading.current_thread().name), real(keys))[1]
    )
    plan = [[Key(1, position, view) for position in range(start, 32, 4)] for start in range(4) for view in (0, 1)]
    for one, other in zip(threaded.batches(plan), alone.batches(plan), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)
    assert names and all(name.startswith("zoo-data") for name in names)


def test_threads_stop_when_nobody_listens(folder: Path) -> None:
    threaded = fed(opened(folder), "none")
    batches = threaded.batches([[Key(0, position, 0)] for position in range(30)])
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zoo-data")]


def test_one_batch_is_finished_ahead_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of things on CUDA, with streams that only write down what is asked of them."""
    told: list[str] = []
    side = SimpleNamespace(record_event=lambda: f"event {sum(line.startswith('finish') for line in told)}")
    current = SimpleNamespace(wait_event=lambda event: told.append(f"wait for {event}"))

    @contextlib.contextmanager
    def within(stream: object) -> Iterator[None]:
        assert stream is side
        told.append("side")
        yield
        told.append("main")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)

    def tensor() -> Any:
        return SimpleNamespace(record_stream=lambda stream: told.append("keep") if stream is current else None)

    def finish(packed: Any, device: torch.device) -> Any:
        told.append(f"finish {packed.number}")
        return SimpleNamespace(number=packed.number, images=tensor(), labels=tensor())

    def packed(number: int) -> Packed:
        pixels = SimpleNamespace(is_pinned=lambda: True)
        return SimpleNamespace(number=number, pixels=pixels)  # type: ignore[return-value]

    view = SimpleNamespace(batched=False)
    maker = SimpleNamespace(view=view, make=packed, finish=finish)
    for batch in feed.Feed(maker, 0, CUDA).batches([1, 2, 3]):  # type: ignore[arg-type, list-item]
        told.append(f"train {batch.number}")
    assert told == [
        "side", "finish 1", "main", "side", "finish 2", "main", "wait for event 1", "keep", "keep", "train 1",
        "side", "finish 3", "main", "wait for event 2", "keep", "keep", "train 2",
        "wait for event 3", "keep", "keep", "train 3",
    ]  # fmt: skip


def test_the_time_for_an_image_is_shared_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = train_loader(opened(folder, image_size=20).train, config=config(), augment="light", batch_size=8, seed=0)
    seconds = loader.seconds_per_image()
    assert 0 < seconds < 0.1
    clock = iter([0.0, 9.0, 11.0, 20.0, 28.0, 30.0, 40.0, 60.0, 61.0])
    monkeypatch.setattr(feed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(feed.Feed, "threads", 4)
    count = min(16, len(loader._part))
    assert loader.seconds_per_image() == pytest.approx((8.0 / 4 + 1.0) / count)


def anonymous() -> float:
    """MiB of this process that no file backs."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")

    def measure(root: Path, told: Any) -> None:
        torch.set_num_threads(1)  # a forked process has none of the threads that it would wait for
        before = anonymous()
        found = opened(root, image_size=128)
        loader = train_loader(
            found.train, config=config(side=112, crop_pct=0.875), augment="standard", batch_size=16, seed=0
        )
        assert found.train.is_stored(128, "bicubic")
        for _ in loader.epoch(0):
            pass
        told.put(anonymous() - before)

    grown = []
    for count in (200, 1200):
        root = fill(tmp_path / str(count), {"a": count // 2, "b": count // 2}, size=(8, 8))
        told = context.Queue()
        process = context.Process(target=measure, args=(root, told))
        process.start()
        grown.append(told.get(timeout=120))
        process.join()
    # A thousand decoded images more are 47 MiB; what is known of each is about a kilobyte.
    assert grown[1] - grown[0] < 10, grown
