"""What a result says, by what images answer: a class each, labels, steps, a quantity, or several of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.base.text import percent
from zoo.cli.output import printable, say
from zoo.tasks.schema import SHARES, headline

GUESSES = {"accuracy": "always guessing the commonest class", "mAP": "guessing by how common labels are"}


def written(name: str, value: float | None) -> str:
    """`97.2%` where the measure of this name is a share, else `0.720`."""
    return percent(value) if name in SHARES or value is None else f"{value:.3f}"


def worth(result: Mapping[str, Any]) -> str:
    """`97.2% (95.1% to 98.4%)`: the number that a result is known by, with its 95 % interval where there is one."""
    name, value = headline(result)
    text = written(name, value)
    interval = result.get("interval")
    return f"{text} ({percent(interval[0])} to {percent(interval[1])})" if interval else text


def baseline(result: Mapping[str, Any]) -> str:
    """What guessing would reach, with how; empty where nothing is said of it."""
    if result.get("baseline_mae") is not None:
        return f"{result['baseline_mae']:.4g} mean error (always guessing the mean; here {result['mae']:.4g})"
    if result.get("baseline") is None:
        return ""
    if result.get("problem") == "ordinal":
        return (f"0 (always guessing the same step); accuracy {percent(result['accuracy'])}, and "
                f"{percent(result['baseline'])} by always guessing the commonest")  # fmt: skip
    return f"{percent(result['baseline'])} ({GUESSES.get(headline(result)[0], 'by chance')})"


def tasks(result: Mapping[str, Any]) -> None:
    """Print a line for each of several tasks."""
    found = result.get("tasks") or {}
    width = max((len(printable(name)) for name in found), default=0)
    for name, each in found.items():
        chance = baseline(each)
        say(f"  {printable(name):<{width}}  {headline(each)[0]} {worth(each)} of {each['n']:,}"
            + (f"; baseline {chance}" if chance else ""))  # fmt: skip


def detail(found: Mapping[str, Any]) -> None:
    """Print the measures of one task, then a row for each class, label or step."""
    from zoo.cli.render import Column, table  # which imports this module

    kind = found.get("problem", "single-label")
    if kind == "multi-label":
        shown = [("micro F1", f"{found['micro_f1']:.4f}"), ("macro F1", f"{found['macro_f1']:.4f}"),
                 ("every label right", percent(found["accuracy"])), ("loss", f"{found['loss']:.4f}")]  # fmt: skip
    elif kind == "ordinal":
        shown = [("accuracy", percent(found["accuracy"])), ("mean error, steps", f"{found['mae']:.3f}"),
                 ("loss", f"{found['loss']:.4f}")]  # fmt: skip
    elif kind == "regression":
        shown = [("mean error", f"{found['mae']:.4g}"), ("root mean square", f"{found['rmse']:.4g}"),
                 ("by the mean", f"{found['baseline_mae']:.4g}"), ("loss", f"{found['loss']:.4f}")]  # fmt: skip
    else:
        shown = [("top-5 accuracy", percent(found["top5"])), ("loss", f"{found['loss']:.4f}"),
                 ("macro F1", f"{found['macro_f1']:.4f}"), ("calibration error", f"{found['ece']:.4f}")]  # fmt: skip
    for name, value in shown:
        say(f"{name:<18}{value:>8}")
    if kind == "multi-label":
        columns = [Column("label", wrap=True), *(Column(name, right=True) for name in
                   ("images", "AP", "F1", "precision", "recall", "threshold"))]  # fmt: skip
        rows = [[entry["name"], str(entry["n"]), *(percent(entry[key]) for key in ("ap", "f1", "precision", "recall")),
                 f"{entry['threshold']:.3f}"] for entry in found["labels"]]  # fmt: skip
    elif kind == "regression":
        return
    else:
        columns = [Column("step" if kind == "ordinal" else "class", wrap=True), Column("images", right=True),
                   Column("accuracy", right=True)]  # fmt: skip
        rows = [[entry["name"], str(entry["n"]), percent(entry["accuracy"])] for entry in found["classes"]]
    say()
    table(columns, rows)


def said(answer: Mapping[str, Any]) -> str:
    """One answer in a cell: a class with its probability, labels with theirs, or a quantity."""
    if "value" in answer:
        return f"{answer['value']:.4g}"
    if "labels" in answer:
        return shares(answer["labels"]) or "none"
    return f"{answer['label']} {percent(answer['probability'])}"


def shares(pairs: list[Mapping[str, Any]]) -> str:
    """`cat 91.2%, dog 40.0%`."""
    return ", ".join(f"{pair['label']} {percent(pair['probability'])}" for pair in pairs)
