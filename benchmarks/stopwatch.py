"""The clock inside a measured process. It starts with the process, and stands still while a curve is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopwatch:
    """Seconds since the process was started, without those in `paused`.

    A curve of accuracy against time needs the reported images scored after every epoch, which nobody needs who only
    wants a model. So that is off the clock for everybody alike; the one scoring at the end is on it.
    """

    def __init__(self, started: float) -> None:
        """Start at a value of `time.monotonic()`, which all processes of a machine share."""
        self._started = started
        self.off = 0.0  # seconds that did not count
        self.marks: dict[str, float] = {}
        self.points: list[dict[str, Any]] = []

    def now(self) -> float:
        return time.monotonic() - self._started - self.off

    def mark(self, name: str) -> None:
        self.marks[name] = self.now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.off += time.monotonic() - began

    def point(self, accuracy: float, **more: Any) -> None:
        """An epoch is over, and the model stands where it stands."""
        self.points.append({"seconds": self.now(), "accuracy": accuracy, **more})
