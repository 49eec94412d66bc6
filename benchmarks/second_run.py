"""How long a second run on the same data prepares it, next to the first, which found the caches empty.

Preparing is finding, checking and decoding the images, and making or opening activations; imports, the network and the
estimate are not in it. What is ready in the second run is opened without a word, so the stages in which that happens
count as a whole, in both runs. The second run is another process with another recipe: the same head-only training at
another rate, or the training of the last group as well, whose activations are not those of the first.
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
from benchmarks.machine import describe_machine
from benchmarks.process import fresh, warm
from benchmarks.tasks import MOBILENET, Task

WORKS = {"flowers12": Task("second-run", *MOBILENET, "flowers12.zip", 224, {"cache": "on"})}
FIRST = {"strategy": "probe", "epochs": 5}
SECOND = {
    "probe at another rate": {"strategy": "probe", "epochs": 5, "lr": 0.01, "label_smoothing": 0.0},
    "partial": {"strategy": "partial", "epochs": 1},
}
READING = ("reading the images", "checking the images", "checking and decoding the images")
BEFORE = "preparing the backbone"  # the stage in which a data set is opened
ACTIVATIONS = ("computing activations", "opening what a phase trains on")  # what such stages begin with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks.add_arguments(parser, tuple(WORKS), seeds=3)
    results.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = results.Results("second-run", describe_machine(), arguments)
    if not arguments.only_table:
        tasks.require_folders(arguments)
        warm("with_zoo")
        for work in arguments.work:
            for seed in range(arguments.seeds):
                for second in SECOND:
                    key = {"work": work, "second": second, "seed": seed, "limit": arguments.limit}
                    kept.get(key, partial(_both, work, second, seed, arguments))
    return {"machine": kept.machine, "rows": kept.rows}


def preparation(stages: Mapping[str, float]) -> tuple[float, float]:
    """Seconds for the images, and for activations."""
    images = sum(seconds for stage, seconds in stages.items() if stage in (*READING, BEFORE))
    return images, sum(seconds for stage, seconds in stages.items() if stage.startswith(ACTIVATIONS))


def table(record: Mapping[str, Any]) -> str:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        groups.setdefault((row["key"]["work"], row["key"]["second"]), []).append(row)
    lines = []
    for (work, second), rows in groups.items():
        cells = []
        for part in (0, 1):
            cells += [statistics.median(preparation(row[run]["stages"])[part] for row in rows)
                      for run in ("first", "after")]  # fmt: skip
        first, after = (statistics.median(sum(preparation(row[run]["stages"])) for row in rows)
                        for run in ("first", "after"))  # fmt: skip
        shown = (f"{cell:.2f}" for cell in cells)
        lines.append((f"{work}, then {second}", *shown, f"{after / first:.3f}", len(rows)))
    head = ("work: a probe, then", "images, first, s", "second, s", "activations, first, s", "second, s",
            "second : first, both together", "runs")  # fmt: skip
    return f"{pages.machine_line(record['machine'])} Medians.\n\n{pages.table(head, lines)}"


def _both(work: str, second: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        samples = tasks.images(WORKS[work], Path(folder) / "images", seed, arguments)
        done = []
        for number, choices in enumerate((FIRST, SECOND[second])):
            task = tasks.changed(WORKS[work], **choices)
            told = tasks.job(task, samples, arguments.weights, seed, Path(folder) / f"out{number}")
            done.append(fresh("with_zoo", told, Path(folder) / "caches"))
    assert set(READING) & set(done[0]["stages"]), "no stage of the first run reads images: they have other names now"
    return {"first": done[0], "after": done[1], "accuracy": done[1]["accuracy"], "seconds": done[1]["seconds"]}
