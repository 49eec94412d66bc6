"""Scatter plot of accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from zoo.runs.report.plots import GOOD, INK, MUTED, canvas

_ROOM = 1.6  # factor by which the axis extends beyond the smallest and largest cost
_NEAR = 3.0  # ratio of costs below which two names may overlap
_NARROW = 10.0  # ratio of an axis's ends below which its ticks are close together
_INNER = 0.15  # share of the axis on either side of its middle, within which a name fits on both sides of its point
_BESIDE = 1.5  # text lines between a point and a name at the same height
_LINE = 0.055  # height of a name, as a share of the plot's


class Point(NamedTuple):
    """One member of a comparison."""

    name: str
    cost: float  # above 0
    accuracy: float  # 0 to 1
    interval: tuple[float, float]
    front: bool  # on the Pareto front: no other is as accurate and costs less


def cost_plot(points: Sequence[Point], label: str, written: Callable[[float], str], name: str) -> str:
    """Accuracy with its 95 % interval against cost on a logarithmic scale, and the Pareto front as a line.

    `label` names the cost, `written` formats its ticks, and `name` prefixes the ids in the page.
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
    """Whether a name goes to the right of its point, so that it fits and covers no other point.

    `line` is the height of a name in percent, `place` the position of the point on the axis, 0 to 1.
    """
    if abs(place - 0.5) > _INNER:
        return place < 0.5
    right = [other for other in points if other.cost > point.cost]
    return not any(100 * abs(other.accuracy - point.accuracy) < _BESIDE * line for other in right)


def _heights(points: Sequence[Point], line: float) -> list[float]:
    """The height of each name in percent: at its point, or just above a name that it would overlap."""
    heights: dict[int, float] = {}  # filled from the lowest point up
    for number in sorted(range(len(points)), key=lambda number: points[number].accuracy):
        cost, height = points[number].cost, 100 * points[number].accuracy
        for other, taken in heights.items():
            near = max(points[other].cost / cost, cost / points[other].cost) < _NEAR
            if near and abs(height - taken) < line:
                height = taken + line
        heights[number] = height
    return [heights[number] for number in range(len(points))]
