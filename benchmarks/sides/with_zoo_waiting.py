"""zoo's own training loop, timed from outside: on its batches, or on one batch that lies on the device already."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmarks.sides import with_zoo
from benchmarks.stopwatch import Stopwatch
from zoo.data import Batch
from zoo.recipes.plan import PhasePlan
from zoo.training.frozen_cache.phase_data import Source


def run(job: Mapping[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Adapt once, and say of each epoch how many images, how many seconds, and how many of them passed in waiting."""
    epochs: list[dict[str, float]] = []

    def wrap(source: Source, phase: PhasePlan) -> Source:
        steps = phase.steps // phase.epochs

        def timed(number: int, start: int) -> Iterator[Batch]:
            batches = source.epoch(number, start)
            if job["synthetic"]:
                batches = _repeated(next(iter(batches)), steps, _device(source))
            began, waited, images = time.monotonic(), 0.0, 0
            while True:
                asked = time.monotonic()
                batch = next(batches, None)
                waited += time.monotonic() - asked
                if batch is None:
                    break
                images += len(batch.labels)
                yield batch
            _finish(_device(source))
            epochs.append({"images": images, "seconds": time.monotonic() - began, "waited": waited})

        return replace(source, epoch=timed)

    with_zoo.wrap_sources(wrap)
    return {**with_zoo.run(job, watch), "epochs": epochs}


def _repeated(batch: Batch, steps: int, device: torch.device) -> Iterator[Batch]:
    there = replace(batch, images=batch.images.to(device), labels=batch.labels.to(device))
    for _ in range(steps):
        yield there


def _device(source: Source) -> torch.device:
    return next(source.network.parameters()).device


def _finish(device: torch.device) -> None:
    """Wait for what the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
