"""What is made of the figures of several runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy import stats

Point = Mapping[str, Any]  # seconds, accuracy; perhaps best


def alternate(sides: Sequence[str], seeds: int) -> Iterator[tuple[int, str]]:
    """Seed and side in the order of running: the sides take turns at going first, so that drift meets all alike."""
    for seed in range(seeds):
        turn = seed % len(sides)
        yield from ((seed, side) for side in (*sides[turn:], *sides[:turn]))


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % interval by Student's t; None for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return mean, quantile * statistics.stdev(values) / len(values) ** 0.5


def curve(points: Sequence[Point], end: float, final: float) -> list[tuple[float, float]]:
    """Seconds and accuracy of the model that one would have at that time, the final one last.

    Where the best epoch is kept, that is the best one so far (as its own validation images say), not the latest.
    """
    kept: list[tuple[float, float]] = []
    for point in points:
        accuracy = point["accuracy"] if point.get("best", True) or not kept else kept[-1][1]
        kept.append((point["seconds"], accuracy))
    return [*kept, (end, final)]


def time_to(points: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """The first time at which a curve is at an accuracy; None if it never is."""
    return next((seconds for seconds, value in points if value >= accuracy), None)


def percent(values: Sequence[float]) -> str:
    """Mean of shares in per cent, with its interval."""
    mean, half = mean_interval([100 * value for value in values])
    return f"{mean:.1f}" if half is None else f"{mean:.1f} ± {half:.1f}"


def points_apart(values: Sequence[float]) -> str:
    """Mean of differences of shares in points, signed, with its interval."""
    mean, half = mean_interval([100 * value for value in values])
    return f"{mean:+.1f}" if half is None else f"{mean:+.1f} ± {half:.1f}"
