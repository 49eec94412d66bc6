"""Few labels: learning from images without labels beside supervised training on the same labels, at the same steps."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import zoo
from benchmarks.align import gains, in_order, interval, told
from benchmarks.machine import describe_machine
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results, Row
from benchmarks.results import add_arguments as add_results
from zoo.recipes import methods
from zoo.recipes.recipe import Recipe

SUPERVISED = "supervised"
# FixMatch at every number of labels per class, the others at one of them.
EVERYWHERE, ONCE = "fixmatch", 25
PER_CLASS = (4, 25, 100)
ASKED = ("backbone", "epochs", "batch_size", "ratio", "threshold", "archive")  # other runs where it is otherwise
SHARED = {"strategy": "finetune", "image_size": 64, "augment": "light", "threads": 1, "precision": "fp32",
          "schedule": "cosine", "label_smoothing": 0.0, "refit": "off"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--per-class", type=int, nargs="+", default=list(PER_CLASS))
    parser.add_argument("--methods", nargs="+", default=list(methods.SEMI), choices=methods.SEMI)
    parser.add_argument("--backbone", default="resnet_nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the images without labels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--ratio", type=int, default=7, help="images without labels beside each labelled one")
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--archive", default="cifar10.zip")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = Results("semi", describe_machine(), arguments, timed=False)
    asked = {name: getattr(arguments, name) for name in ASKED}
    work = [(count, method) for count, method in product(PER_CLASS, (SUPERVISED, *methods.SEMI))
            if method in (SUPERVISED, EVERYWHERE) or count == ONCE]  # fmt: skip
    if not arguments.only_table:
        if arguments.data is None:
            raise SystemExit("--data must be named: the folder of the archives")
        for seed, (count, method) in product(range(arguments.seeds), work):
            if count in arguments.per_class and method in (SUPERVISED, *arguments.methods):
                key = {"per_class": count, "method": method, "seed": seed, **asked}
                kept.get(key, partial(_once, arguments, count, method, seed))
    found = [row for row in kept.rows if asked.items() <= row["key"].items()]
    rows = [{"per_class": count, "method": method, "runs": in_order(found, per_class=count, method=method)}
            for count, method in work]  # fmt: skip
    return {**asked, "machines": kept.machines, "rows": [row for row in rows if row["runs"]]}


def _once(arguments: argparse.Namespace, count: int, method: str, seed: int) -> Row:
    archive = arguments.data / arguments.archive
    with tempfile.TemporaryDirectory() as folder:
        recipe = _recipe(arguments, count, method, seed)
        record = zoo.adapt(arguments.backbone, str(archive), recipe, out=Path(folder) / "run").record
    return {"accuracy": record["result"]["accuracy"], "steps": record["plan"]["steps"]}


def _recipe(arguments: argparse.Namespace, count: int, method: str, seed: int) -> Recipe:
    """The supervised run has the same images named beside it, so that its epochs have as many steps."""
    archive = str(arguments.data / arguments.archive)
    shared = {**SHARED, "train_per_class": count, "epochs": arguments.epochs, "batch_size": arguments.batch_size,
              "unlabelled_ratio": arguments.ratio, "seed": seed}  # fmt: skip
    if method == SUPERVISED:
        return Recipe(**shared, target=archive)
    return Recipe(**shared, unlabelled=archive, semi=method, threshold=arguments.threshold)


def table(record: dict[str, Any]) -> str:
    head = ["labels per class", "method", "accuracy, %", "against supervised, points", "steps"]
    rows: list[list[object]] = []
    base: Mapping[int, Sequence[Mapping[str, Any]]] = {
        row["per_class"]: row["runs"] for row in record["rows"] if row["method"] == SUPERVISED
    }
    for row in record["rows"]:
        runs = row["runs"]
        gain = "-"
        if row["method"] != SUPERVISED:
            gain = told(gains(runs, base.get(row["per_class"], ()), "accuracy"))
        accuracy = interval([run["accuracy"] for run in runs])
        rows.append([row["per_class"], f"`{row['method']}`", accuracy, gain, f"{runs[0]['steps']:,}"])
    seeds = " to ".join(map(str, sorted({len(row["runs"]) for row in record["rows"]})))
    return (
        f"{machine_line(*record['machines'])} `{record['backbone']}` on {record['archive']} at 64 pixels, batches of "
        f"{record['batch_size']} labelled images and {record['ratio']} times as many without labels, "
        f"{record['epochs']} passes over these, threshold {record['threshold']:g}; means over {seeds} seeds with 95 % "
        "intervals (Student's t), differences seed by seed. Labels per class count those that choose the epoch. The "
        "supervised runs take the same number of steps, which is the budget that is stated; times are not told.\n\n"
        f"{markdown(head, rows)}"
    )
