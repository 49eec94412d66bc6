"""How often something is done: by time, by steps, or by whichever comes first."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?([smh])")
_STEPS = re.compile(r"(\d+) ?steps?")


@dataclass(frozen=True, slots=True)
class Interval:
    """At least one of both is set."""

    seconds: float | None = None
    steps: int | None = None

    def is_over(self, seconds: float, steps: int) -> bool:
        """Whether it is time again, so many seconds and steps after the last time."""
        by_time = self.seconds is not None and seconds >= self.seconds
        return by_time or (self.steps is not None and steps >= self.steps)


def parse_interval(text: str) -> Interval:
    """Read `10m`, `500 steps`, or `10m, 500 steps`.

    Raises:
        ValueError: It is none of these; the text says what would be one.
    """
    seconds: float | None = None
    steps: int | None = None
    for part in text.split(","):
        time, count = _TIME.fullmatch(part.strip()), _STEPS.fullmatch(part.strip())
        if time and seconds is None and float(time[1]) > 0:
            seconds = float(time[1]) * _SECONDS[time[2]]
        elif count and steps is None and int(count[1]) > 0:
            steps = int(count[1])
        else:
            raise ValueError(f"must be a time (90s, 10m, 2h), a number of steps (500 steps) or both, not {text!r}")
    return Interval(seconds, steps)
