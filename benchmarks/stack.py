"""Several networks as one: a stack of three backbones with few labels, and averages of weights on each of them.

Every run is an ordinary run folder in the folder of the work, and one that is finished there is not done again. A seed
cuts the images alike for all members and ways, so each is compared with the others on the same images.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import zoo
from benchmarks.machine import describe_machine
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results, Row
from benchmarks.results import add_arguments as add_results
from benchmarks.tasks import MOBILENET, NANO, RESNET18
from zoo.runs.run_folder import Run
from zoo.studies.statistics import by_seed

MEMBERS = {"resnet_nano": NANO, "resnet18": RESNET18, "mobilenetv2_100": MOBILENET}
SIZES = {"resnet_nano": 64, "resnet18": 64, "mobilenetv2_100": 96}  # pixels
# What is done to a member's recipe; the first is what the others are compared with.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "--soup": {"soup": True},
    "--wise sweep": {"wise": "sweep"},
}
BEST = "best single member"  # what a stack's other rows are compared with
RATES = (5e-4, 2e-3)  # of the runs that `zoo soup` averages with the plain one, which has 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--weights", type=Path, help="folder of the weights files")
    parser.add_argument("--work", type=Path, help="folder of the runs; goes on there")
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), choices=list(MEMBERS))
    parser.add_argument("--per-class", type=int, default=100, help="labelled images of each class")
    parser.add_argument("--epochs", type=int, default=5, help="of each of the two phases")
    parser.add_argument("--seeds", type=int, default=3)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = Results("stack", describe_machine(), arguments, timed=False)
    asked = {"per_class": arguments.per_class, "epochs": arguments.epochs, "members": arguments.members}
    if not arguments.only_table:
        if None in (arguments.data, arguments.weights, arguments.work):
            raise SystemExit("--data, --weights and --work must be named: folders of archives, weights and runs")
        for seed in range(arguments.seeds):
            kept.get({"seed": seed, **asked}, partial(_once, arguments, seed))
    found = [row for row in kept.rows if asked.items() <= row["key"].items()]
    return {**asked, "machines": kept.machines, "rows": [each for row in found for each in row["rows"]]}


def _once(arguments: argparse.Namespace, seed: int) -> Row:
    rows: list[dict[str, Any]] = []
    folder = arguments.work / f"seed-{seed}"
    plain: list[Run] = []
    for name in arguments.members:
        ways = {way: _adapted(arguments, name, seed, folder / f"{name} {way}".replace(" ", "_"), changes)
                for way, changes in WAYS.items()}  # fmt: skip
        rows += [_row(seed, name, way, run) for way, run in ways.items()]
        plain.append(ways["plain"])
        rates = [_adapted(arguments, name, seed, folder / f"{name}_rate_{rate:g}", {"lr": rate}) for rate in RATES]
        soup = _run(folder / f"{name}_zoo_soup", partial(zoo.soup, [ways["plain"], *rates]))
        rows.append(_row(seed, name, "zoo soup", soup))
    stack = _run(folder / "stack", partial(zoo.stack, plain))
    rows += _stack_rows(seed, stack.record["stack"])
    return {"rows": rows}


def _adapted(arguments: argparse.Namespace, name: str, seed: int, path: Path, changes: Mapping[str, Any]) -> Run:
    backbone, _, weights = MEMBERS[name]
    recipe = zoo.Recipe(
        weights=str(arguments.weights / weights), image_size=SIZES[name], train_per_class=arguments.per_class,
        epochs=arguments.epochs, probe_epochs=arguments.epochs, refit="off", seed=seed, **changes,
    )  # fmt: skip
    return _run(path, partial(zoo.adapt, backbone, str(arguments.data / "cifar10.zip"), recipe))


def _stack_rows(seed: int, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a stack's table; the best member, and the way that was chosen, which differ by seed, once more."""
    sys.stderr.write(f"seed {seed}: {facts['choice']}, {facts['weights']}\n")
    return [{"seed": seed, "of": "stack", "way": way, "kept": None,
             **{name: row[name] for name in ("accuracy", "loss", "ece")}}
            for row in facts["rows"] for way in _names(row, facts)]  # fmt: skip


def _names(row: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What a row of a stack's table is, alike for every seed."""
    best = [BEST] if row["name"] == facts["best_single"] else []
    return [*best, *(["the way chosen"] if row["chosen"] else []), row["name"].partition("_plain")[0]]


def _run(path: Path, make: Callable[..., Run]) -> Run:
    """A finished run in a folder: as it is there, gone on with, or made there."""
    run = Run(path.resolve())
    if not run.record_path.is_file():
        make(out=run.path)
    elif not run.finished:
        if run.record.get("soup"):
            shutil.rmtree(run.path)
            make(out=run.path)
        else:
            again = zoo.stack if run.record.get("kind") == "stack" else zoo.adapt
            again(resume=run.path)
    sys.stderr.write(f"{path.parent.name} {path.name}: {run.result.accuracy:.4f}\n")
    return run


def _row(seed: int, name: str, way: str, run: Run) -> dict[str, Any]:
    record = run.record
    soup, wise = record.get("soup") or {}, record.get("wise") or {}
    kept = soup.get("kept") if wise.get("alpha") is None else wise["alpha"]
    return {"seed": seed, "of": name, "way": way, "accuracy": record["result"]["accuracy"],
            "loss": record["result"]["loss"], "ece": record["result"]["ece"], "kept": kept}  # fmt: skip


def table(record: Mapping[str, Any]) -> str:
    """The stack's rows, then each member's ways; differences are paired by seed."""
    rows = record["rows"]
    seeds = len({row["seed"] for row in rows})
    text = [
        f"{machine_line(*record['machines'])} {record['per_class']} labels per class, {seeds} seeds, each with "
        "labelled images of its own; ± is half of the 95 % interval of the difference's mean, by seeds.",
        "",
        _table([row for row in rows if row["of"] == "stack"], BEST),
    ]
    for name in dict.fromkeys(row["of"] for row in rows if row["of"] != "stack"):
        text += ["", f"`{name}`:", "", _table([row for row in rows if row["of"] == name], "plain")]
    return "\n".join(text)


def _table(rows: list[Mapping[str, Any]], against: str) -> str:
    of = {way: [row for row in rows if row["way"] == way] for way in dict.fromkeys(row["way"] for row in rows)}
    first = {row["seed"]: row["accuracy"] for row in of[against]}
    lines = []
    for way, found in of.items():
        gains = [100 * (row["accuracy"] - first[row["seed"]]) for row in found]
        known = by_seed(gains) if len(gains) > 1 else None
        reach = f" ± {(known.interval[1] - known.interval[0]) / 2:.1f}" if known is not None else ""
        kept = [f"{row['kept']:g}" for row in found if row["kept"] is not None]
        accuracy, loss, ece = (statistics.fmean(row[name] for row in found) for name in ("accuracy", "loss", "ece"))
        over = "-" if way == against else f"{statistics.fmean(gains):+z.1f}{reach}"
        told = ", ".join(kept) or "-"
        lines.append([way, f"{100 * accuracy:.1f}", over, f"{loss:.3f}", f"{100 * ece:.1f}", told, len(found)])
    lines.sort(key=lambda line: -float(line[1]))
    head = ["", "accuracy, %", f"over {against}, points", "loss", "calibration error, %", "kept", "seeds"]
    return markdown(head, lines)
