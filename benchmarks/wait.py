"""How long an accelerator waits for data: resnet50 in bf16 at 224 px, against the same steps on a batch that is there.

Both run zoo's own loop, in fresh processes that take turns. The first epoch, in which everything warms up, does not
count. Images come from the decoded store, which is made before training. Without an accelerator nothing is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import pages, results, tasks
from benchmarks.figures import alternate
from benchmarks.machine import accelerator, describe_machine
from benchmarks.process import fresh, warm
from benchmarks.tasks import Task

SIDE = "with_zoo_waiting"
WORKS = {"cifar10": Task("wait", "resnet50", "resnet50", "", "cifar10.zip", 224, images={"train": 1000, "test": 10})}
NONE = "This machine has no accelerator: nothing was measured."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--limit", type=int, help="at most so many images per class; to try things out")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--on-cpu", action="store_true", help="where there is no accelerator, run all the same")
    results.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    machine = describe_machine()
    if accelerator() is None and not arguments.on_cpu and not arguments.only_table:
        return {"why": NONE, "rows": []}
    kept = results.Results("wait", machine, arguments)
    if not arguments.only_table:
        if arguments.data is None:
            raise SystemExit("--data must be named: the folder of the archives")
        warm(SIDE)
        choices = {name: getattr(arguments, name) for name in ("batch_size", "epochs", "precision")}
        for seed, side in alternate(("store", "synthetic"), arguments.seeds):
            key = {"backbone": arguments.backbone, "side": side, "seed": seed, "limit": arguments.limit, **choices}
            kept.get(key, partial(_once, side == "synthetic", seed, choices, arguments))
    return {"machine": kept.machine, "rows": kept.rows}


def table(record: Mapping[str, Any]) -> str:
    if not record["rows"]:
        return str(record["why"])
    groups: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = {}
    for row in record["rows"]:
        key = row["key"]
        group = (key["backbone"], key["precision"], key["batch_size"])
        groups.setdefault(group, {}).setdefault(key["side"], []).append(row)
    lines = []
    for (backbone, precision, batch), sides in groups.items():
        if len(sides) == 2:
            store, synthetic = (_speed(sides[side]) for side in ("store", "synthetic"))
            share = statistics.median(epoch["waited"] / epoch["seconds"] for epoch in _counted(sides["store"]))
            lines.append((f"{backbone}, {precision}, batches of {batch}", f"{100 * share:.1f} %", f"{store:.0f}",
                          f"{synthetic:.0f}", f"{100 * store / synthetic:.0f} %"))  # fmt: skip
    head = ("work", "waiting, of an epoch's time", "images/s", "on synthetic tensors, images/s", "share of that")
    about = f"{pages.machine_line(record['machine'])} Medians over epochs after the first."
    return f"{about}\n\n{pages.table(head, lines)}"


def _counted(rows: list[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """Every epoch but the first of each run."""
    return [epoch for row in rows for epoch in row["epochs"][1:]]


def _speed(rows: list[Mapping[str, Any]]) -> float:
    return statistics.median(epoch["images"] / epoch["seconds"] for epoch in _counted(rows))


def _once(synthetic: bool, seed: int, choices: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    task = replace(WORKS["cifar10"], backbone=arguments.backbone, choices={"strategy": "scratch", **choices})
    with tempfile.TemporaryDirectory() as folder:
        samples = tasks.images(task, Path(folder) / "images", seed, arguments)
        told = tasks.job(task, samples, Path(), seed, Path(folder) / "out", synthetic=synthetic)
        return fresh(SIDE, {**told, "weights": "default"}, Path(folder) / "caches")
