"""Tables and results: with rich on a terminal, as plain aligned lines everywhere else."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from zoo.cli.output import on_terminal, printable, say
from zoo.cli.text import count, duration, memory, percent, plural, rate
from zoo.run import Run

# Of a result, what is too much for a terminal's JSON; run.json and the report have it.
_LARGE = ("confusion", "calibration", "mistakes")
WAITING = 0.02  # share of training spent waiting for images from which a plan speaks of it


class Column(NamedTuple):
    """A table's column."""

    name: str
    right: bool = False  # numbers align to the right
    wrap: bool = False  # may break over lines on a narrow terminal


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], stream: IO[str] | None = None) -> None:
    """Print a table, on stdout unless told otherwise.

    In a pipe every row is one line with all of its text, so that `grep` and `awk` find it.
    """
    stream = stream or sys.stdout
    cells = [[printable(cell) for cell in row] for row in rows]
    if on_terminal(stream):
        _rich_table(columns, cells, stream)
        return
    lines = [[column.name for column in columns], *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        aligned = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        print("  ".join(aligned).rstrip(), file=stream)


def _rich_table(columns: Sequence[Column], rows: list[list[str]], stream: IO[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(cell, style="dim" if cell in ("-", "frozen") else "") for cell in row))
    Console(file=stream, highlight=False).print(drawn)


def plan(record: Mapping[str, Any], stream: IO[str] | None = None) -> None:
    """Print a plan: a row for each phase and group, then what it takes.

    Args:
        record: `zoo.planning.Plan.record()`.
        stream: Where to; stdout if not given.
    """
    stream = stream or sys.stdout
    print(f"Plan: {printable(record['backbone'])} on {printable(record['dataset'])}\n", file=stream)
    columns = [Column("phase"), Column("group"), Column("parameters", right=True), Column("rate", right=True),
               Column("decay", right=True), Column("frozen"), Column("norm")]  # fmt: skip
    rows = []
    for phase in record["phases"]:
        for place, group in enumerate([*phase["groups"], *filter(None, [phase.get("extra")])]):
            frozen = group["frozen"]
            # In a pipe every line stands for itself; on a terminal the eye finds where a phase begins.
            name = phase["name"] if place == 0 or not on_terminal(stream) else ""
            rows.append([name, group["name"], count(group["params"]), "-" if frozen else rate(group["lr"]),
                         "-" if frozen else f"{group['weight_decay']:g}", "yes" if frozen else "no",
                         "-" if group["norm"] == "none" else group["norm"]])  # fmt: skip
    table(columns, rows, stream)
    print(file=stream)
    for phase in record["phases"]:
        trained = sum(group["params"] for group in phase["groups"] if not group["frozen"])
        print(
            f"{printable(phase['name'])}: {plural(phase['epochs'], 'epoch')}, {plural(phase['steps'], 'step')}, "
            f"{phase['schedule']}; trains {count(trained)} parameters",
            file=stream,
        )
        if phase.get("unlabelled"):
            print(f"  {plural(phase['unlabelled'], 'image')} without labels beside each batch", file=stream)
        cache, reason = phase.get("cache"), printable(phase.get("cache_reason") or "")
        if cache:
            print(f"  from activations kept before {cache['entry']}: {plural(cache['views'], 'view')} of each image, "
                  f"{memory(cache['bytes'])}; {reason}", file=stream)  # fmt: skip
        elif reason:
            print(f"  no activations are kept: {reason}", file=stream)
        if phase.get("compiled"):
            print("  compiled", file=stream)
    estimates = []
    if record.get("seconds") is not None:
        share = (record.get("data_wait") or 0.0) / record["seconds"] if record["seconds"] else 0.0
        waiting = f" ({share:.0%} of it waiting for images)" if share >= WAITING else ""
        estimates.append(f"about {duration(record['seconds'])} of training{waiting}")
    if record.get("memory_bytes") is not None:
        estimates.append(f"about {memory(record['memory_bytes'])} of memory")
    if estimates:
        print(", ".join(estimates), file=stream)
    for note in record.get("notes", ()):
        print(f"note: {printable(note)}", file=stream)
    stream.flush()


def small(result: Mapping[str, Any]) -> dict[str, Any]:
    """A record's result without its large parts."""
    return {name: value for name, value in result.items() if name not in _LARGE}


def run_result(record: Mapping[str, Any], run: Run) -> None:
    """Print what a finished run measured, where everything is, and what to do next.

    Args:
        record: The run's `run.json`.
        run: The run.
    """
    from zoo.report.words import averages  # which is heavy to import, and by now is loaded

    result, best = record["result"], record.get("best") or {}
    say(f"accuracy  {_accuracy(result)} of {plural(result['n'], 'image')} from {printable(result['split'])}")
    epoch = f"{printable(best['phase'])} epoch {best['epoch']}, " if best else ""
    say(f"chosen    {epoch}by {printable(result['selected_on'])}")
    for sentence in averages(record):
        say(f"averaged  {printable(sentence)}")
    if record.get("refit"):
        say(f"refit     up to there once more, on all {plural(record['refit']['images'], 'labelled image')}")
    if result.get("baseline") is not None:
        say(f"baseline  {percent(result['baseline'])} (always guessing the commonest class)")
    _target(record.get("target") or {})
    chosen = (record.get("chosen") or {}).get("reason")
    if chosen:
        say(f"backbone  {printable(record['backbone']['name'])}: {printable(chosen)}")
    folder = shell_path(run.path)
    say(f"run       {folder}")
    if run.report.is_file():
        say(f"report    {shell_path(run.report)}")
    say()
    say("next:")
    say(f"  zoo eval {folder}")
    say(f"  zoo predict {folder} IMAGE...")


def _target(target: Mapping[str, Any]) -> None:
    """What came of adapting to a domain, and, where its labels are known, how that compares."""
    if not target:
        return
    name, result = printable(target["name"]), target.get("result")
    if result is None:
        say(f"target    {name}: {plural(target['n'], 'image')}, and no labels to report an accuracy on")
        return
    place = f"{printable(result['split'])} of {name}"
    say(f"target    {_accuracy(result)} of {plural(result['n'], 'image')} from {place} (labels used for this alone)")
    chosen, oracle = target.get("chosen"), target.get("oracle")
    if chosen and oracle:
        say(f"oracle    {percent(chosen['accuracy'])} after the epoch chosen by {target['select_by']}, "
            f"{percent(oracle['accuracy'])} after the one that the target's labels would choose")  # fmt: skip


def reproduction(record: Mapping[str, Any], run: Run) -> None:
    """Print what came of doing a run again.

    Args:
        record: `Reproduction.record()`.
        run: The new run.
    """
    tensors = record["tensors"]
    if record["identical"]:
        say(f"weights   identical to the bit ({plural(tensors['n'], 'tensor')})")
    else:
        largest = record["max_difference"]
        size = "their shapes differ" if largest is None else f"by up to {largest:.3g}"
        say(f"weights   not the same: {size}, in {tensors['differing']} of {plural(tensors['n'], 'tensor')}")
    say(f"accuracy  {percent(record['accuracy']['before'])} then, {percent(record['accuracy']['now'])} now")
    for entry in record["differences"]:
        say(f"differs   {printable(entry['what'])}: {printable(entry['before'])} then, {printable(entry['now'])} now")
    if not record["differences"]:
        say("differs   nothing: the same data, weights, plan, versions and machine")
    say(f"run       {shell_path(run.path)}")


def evaluation(found: Mapping[str, Any]) -> None:
    """Print an evaluation: the measures, then a row for each class."""
    say(f"{_accuracy(found)} accuracy of {plural(found['n'], 'image')} from {printable(found['split'])}\n")
    measures = [("top-5 accuracy", percent(found["top5"])), ("loss", f"{found['loss']:.4f}"),
                ("macro F1", f"{found['macro_f1']:.4f}"), ("calibration error", f"{found['ece']:.4f}")]  # fmt: skip
    for name, value in measures:
        say(f"{name:<18}{value:>8}")
    say()
    rows = [[entry["name"], str(entry["n"]), percent(entry["accuracy"])] for entry in found["classes"]]
    table([Column("class", wrap=True), Column("images", right=True), Column("accuracy", right=True)], rows)


def predictions(records: Sequence[Mapping[str, Any]]) -> None:
    """Print predictions: a row for each image, the best guess first."""
    rows = []
    for entry in records:
        others = [f"{other['label']} {percent(other['probability'])}" for other in entry["top"][1:]]
        rows.append([entry["path"], entry["label"], percent(entry["probability"]), ", ".join(others)])
    table(
        [Column("image", wrap=True), Column("label", wrap=True), Column("probability", right=True),
         Column("then", wrap=True)],
        rows,
    )  # fmt: skip


def shell_path(path: Path) -> str:
    """A path as a person would type it here: relative where that is shorter, quoted where it must be."""
    absolute = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def _accuracy(result: Mapping[str, Any]) -> str:
    """`97.2% (95.1% to 98.4%)`: with its 95 % interval where there is one."""
    interval = result.get("interval")
    if not interval:
        return percent(result["accuracy"])
    return f"{percent(result['accuracy'])} ({percent(interval[0])} to {percent(interval[1])})"
