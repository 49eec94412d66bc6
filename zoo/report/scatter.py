"""Accuracy against cost, as a plot in the page's style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from zoo.report.plots import GOOD, INK, MUTED, canvas


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
        middle = sorted(point.cost for point in points)[len(points) // 2]
        for point in points:
            right = point.cost <= middle
            axes.annotate(point.name, (point.cost, 100 * point.accuracy), xytext=(7 if right else -7, 4), color=INK,
                          textcoords="offset points", ha="left" if right else "right", fontsize=8)  # fmt: skip
        costs = [point.cost for point in points]
        axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        return finish()
