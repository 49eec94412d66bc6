"""`comparison.html`: one file that shows a comparison to a person, without anything from outside."""

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

# Cost in a row of the summary -> what it is, and how it is written.
COSTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "train_seconds": ("seconds of training", text.duration),
    "flops": ("FLOPs of one image", text.compact),
    "params": ("parameters", text.compact),
    "memory_bytes": ("memory at the peak of training", text.size),
}


def write_comparison(page: Path, record: Mapping[str, Any]) -> Path:
    """Write a comparison's page.

    Args:
        page: Where to.
        record: The comparison's record with its summary; it may be unfinished, in which case the page says so.

    Returns:
        The path of the page: one self-contained file that loads nothing from outside and works without a network.

    Raises:
        ZooError: The page cannot be written.
    """
    summary = part(record, "summary")
    rows = summary.get("rows") or []
    context = {
        "record": record,
        "finished": record.get("status") == "finished",
        "dataset": part(record, "dataset"),
        "environment": part(record, "environment"),
        "rows": rows,
        "differences": summary.get("differences") or [],
        "failed": summary.get("failed") or [],
        "notes": summary.get("notes") or [],
        "costs": {name: label for name, (label, _) in COSTS.items()},
        "plots": _plots(rows),
        "dash": text.DASH,
    }
    write_atomic(page, render("comparison.html.jinja", context))
    return page


def _plots(rows: list[dict[str, Any]]) -> dict[str, Markup]:
    """Accuracy against each cost that is known of two members or more."""
    from zoo.runs.report.scatter import Point, cost_plot  # matplotlib takes a moment to import

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
