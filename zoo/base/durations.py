"""Durations as users type them, "10m" and "500 steps": parsing and formatting."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(rf"(\d+(?:\.\d+)?) ?([{''.join(UNITS)}])")
_STEPS = re.compile(r"(\d+)[ -]?steps?")


def parse_seconds(text: str) -> float | None:
    """The seconds of `90s`, `10m`, `1.5 h` or `7d`; None for anything else."""
    time = _TIME.fullmatch(text.strip())
    return float(time[1]) * UNITS[time[2]] if time else None


def parse_steps(text: str) -> int | None:
    """The number in `500steps`, `500 steps` or `1 step`; None for anything else."""
    steps = _STEPS.fullmatch(text.strip())
    return int(steps[1]) if steps else None


def written(seconds: float) -> str:
    """Seconds in the form that `parse_seconds` reads, in the largest unit of which they are whole quarters."""
    for unit in ("h", "m"):
        if seconds >= UNITS[unit] and (seconds / UNITS[unit] * 4).is_integer():
            return f"{seconds / UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


@dataclass(frozen=True, slots=True)
class Interval:
    """How often to do something: by time, by steps, or by whichever comes first. At least one is set."""

    seconds: float | None = None
    steps: int | None = None

    def is_over(self, seconds: float, steps: int) -> bool:
        """Whether to do it again, given the seconds and steps since the last time."""
        by_time = self.seconds is not None and seconds >= self.seconds
        return by_time or (self.steps is not None and steps >= self.steps)


def parse_interval(text: str) -> Interval:
    """Read `10m`, `500 steps`, or `10m, 500 steps`; raises ValueError with the valid forms for anything else."""
    seconds: float | None = None
    steps: int | None = None
    for part in text.split(","):
        if (time := parse_seconds(part)) and seconds is None:
            seconds = time
        elif (count := parse_steps(part)) and steps is None:
            steps = count
        else:
            raise ValueError(f"must be a time (90s, 10m, 2h), a number of steps (500 steps) or both, not {text!r}")
    return Interval(seconds, steps)
