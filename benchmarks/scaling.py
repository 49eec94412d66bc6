"""Time and memory against the number of images at 224 px, and against how much of the network is frozen.

Images: one epoch of the last group and the head of a small network, with and without cached features; memory is what
the process and its workers held that no file backs. Frozen depth: from which layer group on a phase trains, at 64 px.
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
from benchmarks.machine import describe_machine
from benchmarks.process import fresh, warm
from benchmarks.tasks import FEW, NANO, Task

COUNTS = (1_000, 5_000, 20_000)
CLASSES = 10
DEPTHS = ("layer1", "layer2", "layer3", "layer4", "head")
WORKS = {
    "images": Task("scaling", *NANO, "cifar10.zip", 224, {"strategy": "partial", "epochs": 1, "cache_views": 1}),
    "depth": Task("scaling", *NANO, "cifar10.zip", 64, {"strategy": "partial"}, FEW),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks.add_arguments(parser, tuple(WORKS), seeds=1)
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="training images")
    parser.add_argument("--epochs", type=int, help="of the runs at each depth; default: the strategy's own")
    results.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = results.Results("scaling", describe_machine(), arguments)
    if not arguments.only_table:
        tasks.require_folders(arguments)
        warm("with_zoo")
        for work, value, task in _cases(arguments):
            for seed, cache in alternate(("on", "off"), arguments.seeds):
                one = tasks.changed(task, cache=cache)
                key = {"work": work, "value": value, "cache": cache, "seed": seed, "limit": arguments.limit,
                       "epochs": one.choices.get("epochs")}  # fmt: skip
                kept.get(key, partial(_once, one, seed, arguments))
    return {"machine": kept.machine, "rows": kept.rows}


def table(record: Mapping[str, Any]) -> str:
    parts = [f"{pages.machine_line(record['machine'])} Seconds and megabytes are medians; kept: whether activations "
             "are; training takes in making them."]  # fmt: skip
    for work, what in (("images", "training images"), ("depth", "trains from")):
        groups: dict[tuple[Any, str], list[Mapping[str, Any]]] = {}
        for row in record["rows"]:
            if row["key"]["work"] == work:
                groups.setdefault((row["key"]["value"], row["key"]["cache"]), []).append(row)
        lines = []
        for (value, cache), rows in groups.items():
            whole, training, decoding = (statistics.median(values) for values in zip(*map(_times, rows), strict=True))
            memory = statistics.median(row["anonymous_mb"] for row in rows)
            shown = f"{value:,}" if isinstance(value, int) else value
            lines.append((shown, cache, f"{whole:.1f}", f"{training:.1f}", f"{decoding:.1f}", f"{memory:.0f}"))
        if lines:
            head = (what, "kept", "whole process, s", "training, s", "reading, decoding, s", "anonymous memory, MB")
            parts.append(pages.table(head, lines))
    return "\n\n".join(parts)


def _times(row: Mapping[str, Any]) -> tuple[float, float, float]:
    decoding = sum(seconds for stage, seconds in row["stages"].items() if stage.endswith("the images"))
    return row["seconds"]["whole"], row["seconds"]["training"], decoding


def _cases(arguments: argparse.Namespace) -> list[tuple[str, Any, Task]]:
    cases: list[tuple[str, Any, Task]] = []
    if "images" in arguments.work:
        for count in arguments.counts:
            images = {"train": max(2, count // CLASSES), "test": 100}
            cases.append(("images", count, replace(WORKS["images"], images=images)))
    if "depth" in arguments.work:
        depths = [tasks.changed(WORKS["depth"], train_from=depth, epochs=arguments.epochs) for depth in DEPTHS]
        cases += [("depth", depth, task) for depth, task in zip(DEPTHS, depths, strict=True)]
    return cases


def _once(task: Task, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        samples = tasks.images(task, Path(folder) / "images", seed, arguments)
        told = tasks.job(task, samples, arguments.weights, seed, Path(folder) / "out")
        return fresh("with_zoo", told, Path(folder) / "caches")
