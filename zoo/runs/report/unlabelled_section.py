"""Unlabelled images in the report: parts of the loss, pseudo-labels that counted, methods tried."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from zoo.recipes import methods
from zoo.runs.report import tables
from zoo.runs.report.sentences import part


def loss_parts(history: tables.History) -> list[str]:
    """The logged losses: of the labelled images and of each method."""
    names = ("supervised", *methods.ALIGNMENT, *methods.SEMI)
    return [name for name in names if len(history.parts.get(name, ())) > 1]


def sure(history: tables.History) -> float | None:
    """The share of pseudo-labels above the threshold, over the last tenth of the steps; None if not logged."""
    values = [value for _, value in history.parts.get("sure", ())]
    return statistics.fmean(values[-max(1, len(values) // 10) :]) if len(values) > 1 else None


def candidates(record: dict[str, Any]) -> dict[str, Any]:
    """The methods tried by `align: auto`."""
    chosen = part(record, "target", "tried")
    rows = list(chosen.get("rows") or ())
    n = part(record, "target", "result").get("n")
    source_only = next((row for row in rows if row.get("align") == "none"), None)
    return {
        "candidates": [{**row, "gain": _gain(row, source_only, n)} for row in rows],
        "source_only": source_only,
        "chosen_by": str(chosen.get("by") or ""),
        "left_out": part(chosen, "left_out"),
    }


def _gain(row: Mapping[str, Any], source_only: Mapping[str, Any] | None, n: int | None) -> str:
    """The gain of a method over source only on the target's n images, in points; empty if unknown."""
    ours, theirs = row.get("accuracy"), (source_only or {}).get("accuracy")
    if row is source_only or ours is None or theirs is None or not n:
        return ""
    # The 95 % interval of a difference, as if the two were measured on different images.
    noise = 1.96 * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / n)
    verdict = " (within noise)" if abs(ours - theirs) <= noise else " (hurts)" if ours < theirs else ""
    return f"{100 * (ours - theirs):+.1f} points{verdict}"
