"""The plan as text: rows of its table and lines below it, for terminal, report, card and `str(plan)`.

The source is `Plan.record()`, since a record from elsewhere may lack any part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from zoo.base.text import DASH, compact, count, duration, percent, plural, rate, size

WAITING = 0.02  # share of training spent waiting for images; a plan mentions larger ones


class GroupRow(NamedTuple):
    """One layer group in one phase."""

    phase: str
    group: str
    parameters: str
    rate: str  # at its peak
    decay: str
    frozen: str  # yes or no
    norm: str


NUMBERS = ("parameters", "rate", "decay")  # columns that align to the right


def group_rows(phase: Mapping[str, Any]) -> list[GroupRow]:
    """A row for each layer group of a phase, and last for the objective's own parameters, if it has any."""
    groups = [*(phase.get("groups") or ()), *filter(None, [phase.get("extra")])]
    return [
        GroupRow(
            phase=str(phase.get("name")),
            group=str(group.get("name")),
            parameters=count(group.get("params")),
            rate=DASH if group.get("frozen") else rate(group.get("lr")),
            decay=DASH if group.get("frozen") else rate(group.get("weight_decay")),
            frozen="yes" if group.get("frozen") else "no",
            norm=DASH if group.get("norm") in (None, "none") else str(group["norm"]),
        )
        for group in groups
    ]


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The lines below the table: each phase, the total cost, and the notes."""
    found = [line for phase in plan["phases"] for line in _of_phase(phase)]
    estimates = []
    if plan.get("seconds") is not None:
        share = (plan.get("data_wait") or 0.0) / plan["seconds"] if plan["seconds"] else 0.0
        waiting = f" ({percent(share, 0)} of it waiting for images)" if share >= WAITING else ""
        estimates.append(f"about {duration(plan['seconds'])} of training{waiting}")
    if plan.get("memory_bytes") is not None:
        estimates.append(f"about {size(plan['memory_bytes'])} of memory")
    found += [", ".join(estimates)] if estimates else []
    return [*found, *(f"note: {note}" for note in plan.get("notes", ()))]


def _of_phase(phase: Mapping[str, Any]) -> list[str]:
    trained = sum(group["params"] for group in phase["groups"] if not group["frozen"])
    found = [
        f"{phase['name']}: {plural(phase['epochs'], 'epoch')}, {plural(phase['steps'], 'step')}, "
        f"{phase['schedule']}; trains {compact(trained)} parameters"
    ]
    if phase.get("unlabelled"):
        found.append(f"  {unlabelled_line(phase)}")
    cache, reason = phase.get("cache"), phase.get("cache_reason")
    if cache:
        found.append(f"  from features cached before {cache['entry']}: {plural(cache['views'], 'view')} of each "
                     f"image, {size(cache['bytes'])}; {reason}")  # fmt: skip
    elif reason:
        found.append(f"  no features are cached: {reason}")
    return [*found, "  compiled"] if phase.get("compiled") else found


def unlabelled_line(phase: Mapping[str, Any]) -> str:
    """A step's unlabelled images in words; the record counts each view of an image."""
    views = phase.get("views") or 1
    images = plural((phase.get("unlabelled") or 0) // views, "unlabelled image")
    return f"{images} alongside each batch" + (f", in {views} views each" if views > 1 else "")
