"""The last group and the head, with and without cached features of what is frozen below them.

Both train on the same images with the same seed, each in a fresh process with empty caches, and take turns at going
first. Without augmentation both should end with the same accuracy within noise; with it, an image is seen in as many
views as are kept instead of in a new one each epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import pages, results, tasks
from benchmarks.figures import alternate, percent, points_apart
from benchmarks.machine import describe_machine
from benchmarks.process import fresh, warm
from benchmarks.tasks import FEW, MOBILENET, NANO, Task

PARTIAL = {"strategy": "partial"}
WORKS = {
    "cifar10": Task("partial", *NANO, "cifar10.zip", 64, PARTIAL, FEW),
    "hymenoptera": Task("partial", *MOBILENET, "hymenoptera.zip", 224, PARTIAL),
}
AUGMENT = ("none", "light")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks.add_arguments(parser, tuple(WORKS), seeds=5)
    parser.add_argument("--augment", nargs="+", default=list(AUGMENT), choices=AUGMENT)
    parser.add_argument("--epochs", type=int, help="default: the strategy's own")
    results.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = results.Results("partial", describe_machine(), arguments)
    if not arguments.only_table:
        tasks.require_folders(arguments)
        warm("with_zoo")
        for work in arguments.work:
            for augment in arguments.augment:
                for seed, cache in alternate(("on", "off"), arguments.seeds):
                    changes = {"augment": augment, "cache": cache, "epochs": arguments.epochs}
                    key = {"work": work, **changes, "seed": seed, "limit": arguments.limit}
                    kept.get(key, partial(_once, work, changes, seed, arguments))
    return {"machine": kept.machine, "rows": kept.rows}


def table(record: Mapping[str, Any]) -> str:
    found: dict[tuple[Any, ...], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for row in record["rows"]:
        key = row["key"]
        group = (key["work"], key["augment"], key["epochs"], key["limit"])
        found.setdefault(group, {}).setdefault(key["cache"], {})[key["seed"]] = row
    lines = []
    for (work, augment, *_), sides in found.items():
        seeds = sorted(set(sides.get("on", {})) & set(sides.get("off", {})))
        if not seeds:
            continue
        on, off = ([sides[cache][seed] for seed in seeds] for cache in ("on", "off"))
        cells: list[Any] = [f"{work}, augmentation {augment}"]
        for part in ("training", "whole"):
            kept, without = (statistics.median(row["seconds"][part] for row in rows) for rows in (on, off))
            cells += [f"{kept:.1f}", f"{without:.1f}", f"{kept / without:.2f}"]
        cells += [percent([row["accuracy"] for row in rows]) for rows in (on, off)]
        cells.append(points_apart([a["accuracy"] - b["accuracy"] for a, b in zip(on, off, strict=True)]))
        lines.append((*cells, len(seeds)))
    about = (f"{pages.machine_line(record['machine'])} Seconds are medians; training takes in making the activations. "
             "Accuracy in % on the reported images, mean over paired seeds with its 95 % interval.")  # fmt: skip
    head = ("work", "training with, s", "without, s", "ratio", "whole process with, s", "without, s", "ratio",
            "accuracy with", "without", "points apart", "seeds")  # fmt: skip
    return f"{about}\n\n{pages.table(head, lines)}"


def _once(work: str, changes: Mapping[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    task = tasks.changed(WORKS[work], **changes)
    with tempfile.TemporaryDirectory() as folder:
        samples = tasks.images(task, Path(folder) / "images", seed, arguments)
        told = tasks.job(task, samples, arguments.weights, seed, Path(folder) / "out")
        row = fresh("with_zoo", told, Path(folder) / "caches")
    asked, got = changes["cache"], row["cached"]
    assert (got == "off") == (asked == "off"), f"asked for cache {asked}, and got {got}"
    return {**row, "samples": samples.sha256}
