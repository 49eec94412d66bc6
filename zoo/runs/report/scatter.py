"""Accuracy against cost, as a plot in the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from zoo.runs.report.plots import GOOD, INK, MUTED, canvas

_ROOM = 1.6  # times the smallest and the largest cost that the axis goes beyond them
_NEAR = 3.0  # times another's cost within which names may overlap
_NARROW = 10.0  # times its beginning that an axis may end at, for its ticks to be close together
_INNER = 0.15  # of the axis, to either side of its middle: there a name has room on both sides of its point
_BESIDE = 1.5  # lines of names within which a point is as high as another's name
_LINE = 0.055  # of the plot's height that a name takes


class Point(NamedTuple):
    """One member of a comparison."""

    name: str
    cost: float  # above 0
    accuracy: float  # 0 to 1
    interval: tuple[float, float]
    front: bool  # no other costs less and is as accurate


def cost_plot(points: Sequence[Point], label: str, written: Callable[[float], str], name: str) -> str:
    """Accuracy with its 95 % interval over cost, cost on a logarithmic scale, the Pareto front as a line.

    Args:
        points: The members.
        label: What the cost is.
        written: How a cost is written at the axis.
        name: Of the plot, for ids in the page.
    """
    with canvas(name, f"Accuracy against {label}", (5.4, 3.4)) as (figure, finish):
        axes = figure.add_subplot()
        for point in points:
            colour = GOOD if point.front else MUTED
            low, high = point.interval
            axes.plot([point.cost, point.cost], [100 * low, 100 * high], color=colour, linewidth=1.2, alpha=0.55)
            axes.plot([point.cost], [100 * point.accuracy], color=colour, marker="o", markersize=5.5, linewidth=0)
        front = sorted((point.cost, 100 * point.accuracy) for point in points if point.front)
        if len(front) > 1:
            axes.step(*zip(*front, strict=True), where="post", color=GOOD, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        costs = [point.cost for point in points]
        low, high = min(costs) / _ROOM, max(costs) * _ROOM
        axes.set_xlim(low, high)
        bottom, top = axes.get_ylim()
        line = (top - bottom) * _LINE
        for point, height in zip(points, _heights(points, line), strict=True):
            right = _on_the_right(point, points, line, math.log(point.cost / low) / math.log(high / low))
            axes.annotate(point.name, (point.cost, height), xytext=(7 if right else -7, 3), color=INK,
                          textcoords="offset points", ha="left" if right else "right", fontsize=8)  # fmt: skip
        narrow = high / low < _NARROW
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        return finish()


def _on_the_right(point: Point, points: Sequence[Point], line: float, place: float) -> bool:
    """Whether a name stands to the right of its point: where it has room, and covers no point that is as high.

    Args:
        point: Whose name.
        points: All.
        line: What a name takes of the height, percent.
        place: Of the point on the axis, from 0 to 1.
    """
    if abs(place - 0.5) > _INNER:
        return place < 0.5
    right = [other for other in points if other.cost > point.cost]
    return not any(100 * abs(other.accuracy - point.accuracy) < _BESIDE * line for other in right)


def _heights(points: Sequence[Point], line: float) -> list[float]:
    """Where each name stands, percent: at its point, or above the name below it where the two would overlap."""
    heights = [0.0] * len(points)
    placed: list[tuple[float, float]] = []  # cost and height of the names so far, from below
    for number in sorted(range(len(points)), key=lambda number: points[number].accuracy):
        point, height = points[number], 100 * points[number].accuracy
        for cost, other in placed:
            if max(cost / point.cost, point.cost / cost) < _NEAR and abs(height - other) < line:
                height = other + line
        heights[number] = height
        placed.append((point.cost, height))
    return heights
