"""Plots of the features of two domains, and of the values that the objective logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.runs.report.plots import ACCENT, COLOURS, WARM, canvas, line, smoothed, steps_axis
from zoo.runs.report.tables import History


def domain_plot(points: Mapping[str, Any], name: str) -> str:
    """The features of source and target images in their first two principal components."""
    with canvas(name, f"Features of both domains, {name}", (5.4, 3.6)) as (figure, finish):
        axes = figure.add_subplot()
        for domain, colour in (("source", ACCENT), ("target", WARM)):
            where = np.asarray([row for row in points.get(domain) or () if len(row) == 2], dtype=float).reshape(-1, 2)
            axes.plot(where[:, 0], where[:, 1], color=colour, marker="o", markersize=2.6, alpha=0.55, linewidth=0)
        axes.tick_params(labelbottom=False, labelleft=False)
        return finish()


def parts_plot(history: History, names: Sequence[str], label: str, name: str, colours: Sequence[str] = COLOURS) -> str:
    """Logged values of the objective over the steps, smoothed within each phase."""
    with canvas(name, f"{label} over the steps", (5.4, 2.9)) as (figure, finish):
        axes = figure.add_subplot()
        for part, colour in zip(names, colours, strict=False):
            steps, values = np.asarray(history.parts[part], dtype=float).T
            axes.plot(*line(steps, smoothed(steps, values, history), history), color=colour, linewidth=1.5)
        steps_axis(axes, history)
        axes.set_ylabel(label)
        return finish()
