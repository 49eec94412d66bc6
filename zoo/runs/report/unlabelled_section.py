"""What the report says of images without labels: the parts of the loss, the guesses that counted, the methods tried."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from zoo.recipes import methods
from zoo.runs.report import tables
from zoo.runs.report.sentences import part


def loss_parts(history: tables.History) -> list[str]:
    """The losses among what the objective logged: the labelled images' and each method's."""
    names = ("supervised", *methods.ALIGNMENT, *methods.SEMI)
    return [name for name in names if len(history.parts.get(name, ())) > 1]


def sure(history: tables.History) -> float | None:
    """The share of guesses that counted towards the end of training, where guesses have to be sure."""
    values = [value for _, value in history.parts.get("sure", ())]
    return statistics.fmean(values[-max(1, len(values) // 10) :]) if len(values) > 1 else None


def candidates(record: dict[str, Any]) -> dict[str, Any]:
    """What methods were tried, where one was to be found."""
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
    """What a method brought on the target's n images, in points; empty where that is not known."""
    ours, theirs = row.get("accuracy"), (source_only or {}).get("accuracy")
    if row is source_only or ours is None or theirs is None or not n:
        return ""
    noise = 1.96 * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / n)  # as if the images were not the same
    verdict = " (within noise)" if abs(ours - theirs) <= noise else " (hurts)" if ours < theirs else ""
    return f"{100 * (ours - theirs):+.1f} points{verdict}"
