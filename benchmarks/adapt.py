"""zoo beside what else people use: the same weights, images, image size and number of labelled samples.

Every run is a fresh process; the two take turns at going first, seed by seed. zoo's own caches are empty each time. Its
recipe is the strategy's default but for the epochs; `--zoo key=value,…` changes it. The other's settings are in its
file in benchmarks/sides. Time runs from the start of the process to its end and takes in one scoring of the reported
images. Scoring them after every epoch as well, which the curve of accuracy against time needs, is off the clock for
both.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks import adapt_table, results, tasks
from benchmarks.figures import alternate
from benchmarks.machine import describe_machine
from benchmarks.process import fresh, warm
from benchmarks.tasks import TASKS, Task

table, draw_plots = adapt_table.table, adapt_table.draw_plots

PEERS = {"fastai": "with_fastai", "timm": "with_timm", "torchvision-tutorial": "with_torchvision"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", required=True, choices=list(PEERS))
    tasks.add_arguments(parser, tuple(TASKS), seeds=3)
    parser.add_argument("--epochs", type=int, default=adapt_table.EPOCHS, help="of the other, unless it is one epoch")
    parser.add_argument("--zoo", default="", help="changes to zoo's recipe, such as epochs=10,cache=on")
    results.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    name = f"adapt-{arguments.peer}"
    kept = results.Results(name, describe_machine(), arguments)
    if not arguments.only_table:
        tasks.require_folders(arguments)
        sides = {"zoo": "with_zoo", arguments.peer: PEERS[arguments.peer]}
        for side in sides.values():
            warm(side)
        for work in arguments.work:
            for seed, side in alternate(list(sides), arguments.seeds):
                key = {"work": work, "side": side, "seed": seed, **_asked(arguments, side)}
                kept.get(key, partial(_once, TASKS[work], sides[side], seed, arguments))
    return {"benchmark": name, "machine": kept.machine, "peer": arguments.peer, "rows": kept.rows}


def _asked(arguments: argparse.Namespace, side: str) -> dict[str, Any]:
    """What the command line changes for a side: other runs than the plain ones."""
    changes = {"zoo": arguments.zoo} if side == "zoo" else {"epochs": arguments.epochs}
    return {**changes, "limit": arguments.limit}


def _once(task: Task, side: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    ours = side == "with_zoo"
    changes = {key: yaml.safe_load(value) for key, _, value in
               (item.partition("=") for item in arguments.zoo.split(",") if item)}  # fmt: skip
    task = tasks.changed(task, **changes)
    with tempfile.TemporaryDirectory() as folder:
        samples = tasks.images(task, Path(folder) / "images", seed, arguments)
        epochs = 1 if task.kind == "epoch" else arguments.epochs
        told = tasks.job(task, samples, arguments.weights, seed, Path(folder) / "out", curve=True, epochs=epochs)
        row = fresh(side, told, Path(folder) / "caches")
    assert row["n"] == samples.counts["test"], "other images were reported on"
    labelled = samples.counts["train"] + (samples.counts["val"] if ours else 0)
    assert row["trained_on"] + row.get("chosen_on", 0) == labelled, "other images were trained on"
    about = {"samples": samples.sha256, "labelled": samples.counts["train"], "image_size": task.image_size}
    return {**row, **about, "kind": task.kind, "choices": dict(task.choices) if ours else {}}
