"""Tables and results: with rich on a terminal, as plain aligned lines everywhere else."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from zoo.base.text import DASH, aligned, interval, p_value, percent, plural
from zoo.cli.output import on_terminal, printable, say
from zoo.recipes import plan_table
from zoo.runs.run_folder import Run
from zoo.tasks.schema import facts_of, headline, written

# Parts of a result that are too long for `--json`; run.json and the report have them.
_LARGE = ("confusion", "calibration", "mistakes")


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
    for line in aligned([[column.name for column in columns], *cells], [each.name for each in columns if each.right]):
        print(line, file=stream)


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
        drawn.add_row(*(Text(cell, style="dim" if cell in (DASH, "-", "frozen") else "") for cell in row))
    Console(file=stream, highlight=False).print(drawn)


def plan(record: Mapping[str, Any], stream: IO[str] | None = None) -> None:
    """Print a plan's record, on stdout unless told otherwise: a row for each phase and group, then what it takes."""
    stream = stream or sys.stdout
    print(f"Plan: {printable(record['backbone'])} on {printable(record['dataset'])}\n", file=stream)
    # In a pipe every line stands for itself; on a terminal the eye finds where a phase begins.
    rows = [
        row if place == 0 or not on_terminal(stream) else row._replace(phase="")
        for phase in record["phases"]
        for place, row in enumerate(plan_table.group_rows(phase))
    ]
    table([Column(name, right=name in plan_table.NUMBERS) for name in plan_table.GroupRow._fields], rows, stream)
    print(file=stream)
    for line in plan_table.lines(record):
        print(printable(line), file=stream)
    stream.flush()


def small(result: Mapping[str, Any]) -> dict[str, Any]:
    """A record's result, and that of each task in it, without the large parts."""
    parts = {name: value for name, value in result.items() if name not in _LARGE}
    tasks = {name: small(each) for name, each in (parts.get("tasks") or {}).items()}
    return parts | ({"tasks": tasks} if tasks else {})


def run_result(record: Mapping[str, Any], run: Run) -> None:
    """Print what a finished run measured, from its run.json, where everything is, and what to do next."""
    run_measured(record, run)
    run_places(run)


def run_measured(record: Mapping[str, Any], run: Run) -> None:
    """Print the half of it that is known before the report is drawn."""
    from zoo.runs.report.sentences import averages  # heavy to import, and loaded by now

    result, best = record["result"], record.get("best") or {}
    name, _ = headline(result)
    say(f"{name:<9} {worth(result)} of {plural(result['n'], 'image')} from {printable(result['split'])}")
    tasks(result)
    epoch = f"{printable(best['phase'])} epoch {best['epoch']}, " if best else ""
    say(f"chosen    {epoch}by {printable(result['selected_on'])}")
    for sentence in averages(record):
        say(f"averaged  {printable(sentence)}")
    if record.get("refit"):
        say(f"refit     again up to this epoch, on all {plural(record['refit']['images'], 'labelled image')}")
    if baseline(result):
        say(f"baseline  {baseline(result)}")
    _target(record.get("target") or {})
    chosen = (record.get("chosen") or {}).get("reason")
    if chosen:
        say(f"backbone  {printable(record['backbone']['name'])}: {printable(chosen)}")
    say(f"run       {shell_path(run.path)}")


def run_places(run: Run) -> None:
    """Print the other half: where the report is, and what to do next."""
    folder = shell_path(run.path)
    if run.report.is_file():
        say(f"report    {shell_path(run.report)}")
    say(f"\nnext:\n  zoo eval {folder}\n  zoo predict {folder} IMAGE...")


def ensemble_document(record: Mapping[str, Any], run: Run, kind: str) -> dict[str, Any]:
    """What `--json` prints of a stack or soup, which is the record's field `kind`."""
    return {"run": str(run.path), "result": small(record["result"]), kind: record[kind], "seconds": record["seconds"],
            "report": str(run.report)}  # fmt: skip


def difference(pair: Mapping[str, Any]) -> str:
    """A line on a paired difference of accuracies, with its 95 % interval and adjusted p value."""
    low, high = (100 * bound for bound in pair["interval"])
    points = f"{100 * pair['difference']:+.1f} points ({low:+.1f} to {high:+.1f})"
    verdict = "within noise" if pair["within_noise"] else "more than noise"
    names = f"{printable(pair['first'])} over {printable(pair['second'])}"
    return f"  {names}: {points}, p {p_value(pair['p_adjusted'])}, {verdict}"


def _target(target: Mapping[str, Any]) -> None:
    """Print the result on the target domain, and, if its labels are known, that of the best epoch by them."""
    if not target:
        return
    name, result = printable(target["name"]), target.get("result")
    if result is None:
        say(f"target    {name}: {plural(target['n'], 'image')}, and no labels to report an accuracy on")
        return
    images = f"{plural(result['n'], 'image')} from {printable(result['split'])} of {name}"
    say(f"target    {worth(result)} of {images} (labels used for this alone)")
    chosen, oracle = target.get("chosen"), target.get("oracle")
    if chosen and oracle:
        say(f"oracle    {percent(chosen['accuracy'])} after the epoch chosen by {target['select_by']}, "
            f"{percent(oracle['accuracy'])} after the one that the target's labels would choose")  # fmt: skip


def reproduction(record: Mapping[str, Any], run: Run) -> None:
    """Print how the new run compares with the old one, from `Reproduction.record()`."""
    tensors = record["tensors"]
    if record["identical"]:
        say(f"weights   identical to the bit ({plural(tensors['n'], 'tensor')})")
    else:
        largest = record["max_difference"]
        how = "their shapes differ" if largest is None else f"by up to {largest:.3g}"
        say(f"weights   not the same: {how}, in {tensors['differing']} of {plural(tensors['n'], 'tensor')}")
    name, _ = headline(run.record.get("result") or {})
    before, now = (written(name, record["accuracy"][when]) for when in ("before", "now"))
    say(f"{name:<9} {before} then, {now} now")
    for entry in record["differences"]:
        say(f"differs   {printable(entry['what'])}: {printable(entry['before'])} then, {printable(entry['now'])} now")
    if not record["differences"]:
        say("differs   nothing: the same data, weights, plan, versions and machine")
    say(f"run       {shell_path(run.path)}")


def evaluation(result: Mapping[str, Any]) -> None:
    """Print an evaluation: the measures, then a row for each class."""
    name, _ = headline(result)
    say(f"{worth(result)} {name} of {plural(result['n'], 'image')} from {printable(result['split'])}\n")
    if result.get("tasks") is None:
        detail(result)
        return
    for task, each in result["tasks"].items():
        say(f"{printable(task)}: {worth(each)} {headline(each)[0]} of {plural(each['n'], 'image')}\n")
        detail(each)
        say()


def predictions(records: Sequence[Mapping[str, Any]]) -> None:
    """Print predictions: a row for each image, the most probable class first; or the prediction for each task."""
    image = Column("image", wrap=True)
    if "tasks" in records[0]:
        names = list(records[0]["tasks"])
        rows = [[entry["path"], *(_prediction(entry["tasks"][name]) for name in names)] for entry in records]
        table([image, *(Column(name, wrap=True) for name in names)], rows)
        return
    if "label" not in records[0]:
        named = Column("labels", wrap=True) if "labels" in records[0] else Column("value", right=True)
        table([image, named], [[entry["path"], _prediction(entry)] for entry in records])
        return
    rows = [[entry["path"], entry["label"], percent(entry["probability"]), shares(entry["top"][1:])]
            for entry in records]  # fmt: skip
    table([image, Column("label", wrap=True), Column("probability", right=True), Column("then", wrap=True)], rows)


def shell_path(path: Path) -> str:
    """A path as a user would type it here: relative if it is below this folder, quoted if necessary."""
    absolute = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def worth(result: Mapping[str, Any]) -> str:
    """`97.2% (95.1 to 98.4%)`: the headline number of a result, with its 95 % interval if it has one."""
    text = written(*headline(result))
    bounds = result.get("interval")
    return f"{text} ({interval(bounds)})" if bounds else text


def baseline(result: Mapping[str, Any]) -> str:
    """What guessing reaches, and how it guesses; empty if the result does not say."""
    if result.get("baseline_mae") is not None:
        return f"{result['baseline_mae']:.4g} mean error ({facts_of(result).guess}; here {result['mae']:.4g})"
    if result.get("baseline") is None:
        return ""
    if facts_of(result).chance:
        return (f"0 ({facts_of(result).guess}); accuracy {percent(result['accuracy'])}, and "
                f"{percent(result['baseline'])} by always guessing the commonest")  # fmt: skip
    return f"{percent(result['baseline'])} ({facts_of(result).guess})"


def tasks(result: Mapping[str, Any]) -> None:
    """Print a line for each of several tasks."""
    by_name = result.get("tasks") or {}
    width = max((len(printable(name)) for name in by_name), default=0)
    for name, each in by_name.items():
        chance = baseline(each)
        say(f"  {printable(name):<{width}}  {headline(each)[0]} {worth(each)} of {each['n']:,}"
            + (f"; baseline {chance}" if chance else ""))  # fmt: skip


def detail(result: Mapping[str, Any]) -> None:
    """Print the measures of one task, then a row for each class, label or level."""
    from zoo.tasks import kinds  # needs torch, which is loaded by now

    kind = kinds.KINDS[facts_of(result).name]
    for name, key, form in kind.shown:
        say(f"{name:<18}{percent(result[key]) if form == '%' else format(result[key], form):>8}")
    head, rows = kind.table(result)
    if rows:
        say()
        table([Column(head[0], wrap=True), *(Column(name, right=True) for name in head[1:])], rows)


def _prediction(entry: Mapping[str, Any]) -> str:
    """One prediction in a cell: a class with its probability, labels with theirs, or a number."""
    if "value" in entry:
        return f"{entry['value']:.4g}"
    if "labels" in entry:
        return shares(entry["labels"]) or "none"
    return f"{entry['label']} {percent(entry['probability'])}"


def shares(pairs: list[Mapping[str, Any]]) -> str:
    """`cat 91.2%, dog 40.0%`."""
    return ", ".join(f"{pair['label']} {percent(pair['probability'])}" for pair in pairs)
