"""`comparison.html`: a self-contained page about a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from zoo.base import text
from zoo.base.files import write_atomic
from zoo.base.untrusted import is_finite
from zoo.runs.report.page import render
from zoo.runs.report.sentences import part

# Cost in a row of the summary -> its label and format.
COSTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "train_seconds": ("seconds of training", text.duration),
    "flops": ("FLOPs of one image", text.compact),
    "params": ("parameters", text.compact),
    "memory_bytes": ("memory at the peak of training", text.size),
}


def write_comparison(page: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of a comparison, finished or not, from its record; returns its path."""
    summary = part(record, "summary")
    context = {
        "record": record,
        "finished": record.get("status") == "finished",
        "dataset": part(record, "dataset"),
        "environment": part(record, "environment"),
        **{name: summary.get(name) or [] for name in ("rows", "differences", "failed", "notes")},
        "costs": {name: label for name, (label, _) in COSTS.items()},
        "plots": _plots(summary.get("rows") or []),
        "dash": text.DASH,
    }
    write_atomic(page, render("comparison.html.jinja", context))
    return page


def _plots(rows: list[dict[str, Any]]) -> dict[str, Markup]:
    """Accuracy against each cost that is known for at least two members."""
    from zoo.runs.report.scatter import Point, cost_plot  # not at the top: matplotlib is slow to import

    drawn = {}
    for cost, (label, written) in COSTS.items():
        points = [
            Point(row["member"], float(row[cost]), row["accuracy"], tuple(row["interval"]), cost in row["pareto"])
            for row in rows
            if is_finite(row[cost]) and row[cost] > 0
        ]
        if len(points) > 1:
            drawn[cost] = Markup(cost_plot(points, label, written, cost))  # texts were escaped by ElementTree
    return drawn
