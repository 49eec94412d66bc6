"""Tables and plots of `python -m benchmarks adapt`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.figures import curve, percent, points_apart, time_to
from benchmarks.tasks import TASKS

Row = Mapping[str, Any]
EPOCHS = 5  # of the other, where nobody says otherwise
KINDS = {"probe": "head only", "finetune": "all layers", "epoch": "all layers, one epoch"}


def table(record: Mapping[str, Any]) -> str:
    """Both sides, then the ratios."""
    peer = record["peer"]
    sides, ratios = [], []
    for work, pairs in _works(record):
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        task = f"{work} ({KINDS[ours[0]['kind']]}), {ours[0]['labelled']} labelled, {ours[0]['image_size']} px"
        for name, rows in (("zoo", ours), (peer, theirs)):
            sides.append((task if name == "zoo" else "", name, percent([row["accuracy"] for row in rows]),
                          *(_seconds(rows, part) for part in ("whole", "setup", "training")),
                          *(f"{_middle(rows, itemgetter(size)):.0f}"
                            for size in ("memory_mb", "anonymous_mb"))))  # fmt: skip
        reached = [_reached(our, their) for our, their in pairs]
        times = [time for time in reached if time is not None]
        ratios.append((
            work,
            *(_ratio(_middle(ours, part), _middle(theirs, part)) for part in (_whole, _training)),
            _times(times, len(pairs)),
            _ratio(_middle(ours, _memory), _middle(theirs, _memory)),
            points_apart([our["accuracy"] - their["accuracy"] for our, their in pairs]),
            len(pairs),
        ))  # fmt: skip
    about = (
        f"{pages.machine_line(record['machine'])} Accuracy in % on the reported images, mean over seeds with its 95 % "
        "interval; seconds and megabytes are medians. Memory is the most that the process and its workers held at once."
    )
    head = ("work", "", "accuracy", "whole process, s", "set-up, s", "training, s", "memory, MB", "anonymous, MB")
    ratio_head = ("zoo's share of the other's", "whole process", "training", "time to the other's accuracy (runs that "
                  "reach it)", "memory", "accuracy, points apart", "seeds")  # fmt: skip
    picture = f"![Accuracy against time]({_picture(peer)})"
    return "\n\n".join([about, pages.table(head, sides), pages.table(ratio_head, ratios), picture])


def draw_plots(record: Mapping[str, Any], folder: Path) -> None:
    """Accuracy against time, a plot for each piece of work, beside the page."""
    from matplotlib.figure import Figure

    works = list(_works(record))
    rows = -(-len(works) // 2)
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    for number, (work, pairs) in enumerate(works, start=1):
        axes = figure.add_subplot(rows, min(2, len(works)), number)
        for place, (side, colour) in enumerate((("zoo", "tab:blue"), (record["peer"], "tab:orange"))):
            for seed, pair in enumerate(pairs):
                line = _curve(pair[place])
                axes.plot(*zip(*line, strict=True), color=colour, marker=".", alpha=0.8, linewidth=1.2,
                          label=side if seed == 0 else None)  # fmt: skip
        axes.set(title=work, xlabel="seconds since the process started", ylabel="accuracy")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(folder / _picture(record["peer"]), dpi=100)


def _works(record: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[Row, Row]]]]:
    """What was run, with the runs of both sides that had the same seed and images."""
    ours = [row for row in record["rows"] if row["key"]["side"] == "zoo"]
    theirs = [row for row in record["rows"] if row["key"]["side"] == record["peer"]]
    pairs: dict[str, list[tuple[Row, Row]]] = {}
    for our, their in ((our, their) for our in ours for their in theirs):
        own, other = our["key"], their["key"]
        if (own["work"], own["seed"], our["samples"]) == (other["work"], other["seed"], their["samples"]):
            changes = [own["zoo"], "" if other["epochs"] == EPOCHS else f"epochs={other['epochs']} of {record['peer']}"]
            name = ", ".join([own["work"], *filter(None, changes)])
            pairs.setdefault(name, []).append((our, their))
    order = list(TASKS)
    yield from sorted(pairs.items(), key=lambda pair: order.index(pair[1][0][0]["key"]["work"]))


def _reached(ours: Row, theirs: Row) -> float | None:
    """When zoo is at the accuracy that the other ends with, as a share of the other's time to its end."""
    time = time_to(_curve(ours), theirs["accuracy"])
    return None if time is None else time / theirs["marks"]["trained"]


def _times(times: Sequence[float], pairs: int) -> str:
    """The median of the runs that got there, how far these are apart, and how many of all they are."""
    if not times:
        return f"0 of {pairs}"
    spread = f"{min(times):.2f} to {max(times):.2f}; " if len(times) > 1 else ""
    return f"{statistics.median(times):.2f} ({spread}{len(times)} of {pairs})"


def _curve(row: Row) -> list[tuple[float, float]]:
    return curve(row["points"], row["marks"]["trained"], row["accuracy"])


def _middle(rows: Sequence[Row], of: Callable[[Row], float]) -> float:
    return statistics.median(of(row) for row in rows)


def _whole(row: Row) -> float:
    return float(row["seconds"]["whole"])


def _training(row: Row) -> float:
    return float(row["seconds"]["training"])


def _memory(row: Row) -> float:
    return float(row["memory_mb"])


def _seconds(rows: Sequence[Row], part: str) -> str:
    of = _training if part == "training" else lambda row: row["seconds"][part]
    return f"{_middle(rows, of):.1f}"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}"


def _picture(peer: str) -> str:
    return f"benchmarks-{peer}.png"
