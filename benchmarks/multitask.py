"""Class and domain of PACS as two tasks: one network for both beside one for each, trained for the same time in all.

Both archives make one table, which each seed cuts anew into images to train on, to choose the epoch by and to report
on; every run of a seed has the same. The single-task runs come first. An epoch of each joint way is timed, and it
trains for as many as fit into the time that the single-task runs took together. Last, each task alone for twice as many
epochs: what of a gain comes from training longer, and not from the other task.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks.align import interval
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results, Row
from benchmarks.results import add_arguments as add_results

ARCHIVES = {"photo": "pacs_photo.zip", "sketch": "pacs_sketch.zip"}  # each a folder per class
TASKS = ("class", "domain")
JOINT = ("fixed", "uncertainty", "pcgrad")
SIDE, BATCH = 64, 32
SHARED = {"strategy": "finetune", "image_size": SIDE, "batch_size": BATCH, "augment": "light", "precision": "fp32",
          "recalibrate": "off", "refit": "off", "cache": "off", "select_by": "loss"}  # fmt: skip
REPEATS = 20  # of the timed pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--backbone", default="resnet_nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of each single-task run")
    parser.add_argument("--limit", type=int, help="images per class and domain; to try things out")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.machine import describe_machine

    results = Results("multitask", describe_machine(), arguments)
    if not arguments.only_table:
        if arguments.data is None:
            raise SystemExit("--data must be named: the folder of the archives")
        with tempfile.TemporaryDirectory() as folder:
            unpack(arguments.data, Path(folder))
            for seed in range(arguments.seeds):
                _seed(results, arguments, Path(folder), seed)
    return {"rows": results.rows, "machine": results.machine}


def _seed(results: Results, arguments: argparse.Namespace, folder: Path, seed: int) -> None:
    table = write_table(folder, seed, arguments.limit)
    shared = {"backbone": arguments.backbone, "epochs": arguments.epochs, "limit": arguments.limit, "seed": seed}

    def run(way: str, epochs: int, kind: str = "run") -> zoo.Run:
        place = folder / f"{kind}-{way}-{seed}"
        return zoo.adapt(arguments.backbone, str(table), _recipe(table, way, epochs, seed), out=place)

    def joint(way: str) -> Row:
        epochs = _that_fit(run(way, 2, "trial"), budget)
        return _row(run(way, epochs), way, epochs)

    for way in TASKS:
        results.get(
            {"way": way, **shared},
            lambda: _row(run(way, arguments.epochs), way, arguments.epochs),  # noqa: B023  # called at once
        )
    done = [row for row in results.rows if row["key"] in [{"way": way, **shared} for way in TASKS]]
    budget = sum(row["seconds"]["train"] for row in done)
    for way in JOINT:
        results.get({"way": way, **shared}, lambda: joint(way))  # noqa: B023
    twice = 2 * arguments.epochs
    for way in TASKS:
        results.get({"way": way, **shared, "epochs": twice}, lambda: _row(run(way, twice, "longer"), way, twice))  # noqa: B023


def unpack(archives: Path, into: Path) -> None:
    """Write the images as `DOMAIN/CLASS/NAME`."""
    for domain, name in ARCHIVES.items():
        with zipfile.ZipFile(archives / name) as file:
            file.extractall(into / domain)


def write_table(folder: Path, seed: int, limit: int | None) -> Path:
    """Write a table of the images, of each class in each domain a fifth to report on and an eighth to choose.

    Args:
        folder: Where `unpack` has put them.
        seed: Which of them.
        limit: Images of each class in each domain; None: all.
    """
    drawn = random.Random(seed)
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in sorted(folder.glob("*/*/*.*")):
        domain, label = image.parts[-3:-1]
        if domain in ARCHIVES:
            groups[domain, label].append(image.relative_to(folder).as_posix())
    lines = ["path,class,domain,split"]
    for (domain, label), paths in groups.items():
        chosen = drawn.sample(paths, min(len(paths), limit or len(paths)))
        for place, path in enumerate(chosen):
            share = (place + 0.5) / len(chosen)
            split = "test" if share < 1 / 5 else "val" if share < 1 / 5 + 1 / 8 else "train"
            lines.append(f"{path},{label},{domain},{split}")
    table = folder / f"pacs-{seed}.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def _recipe(table: Path, way: str, epochs: int, seed: int) -> zoo.Recipe:
    own: dict[str, Any] = {"label_column": way}
    if way in JOINT:
        own = {"tasks": [f"{name}={table}:{name}:single-label" for name in TASKS], "task_weighting": way}
    return zoo.Recipe.from_record({**SHARED, **own, "epochs": epochs, "seed": seed})


def _row(run: zoo.Run, way: str, epochs: int) -> Row:
    record = run.record
    found = record["result"]
    tasks = (
        {name: each["accuracy"] for name, each in found["tasks"].items()} if way in JOINT else {way: found["accuracy"]}
    )
    return {
        "accuracy": statistics.fmean(tasks.values()),
        "tasks": tasks,
        "n": found["n"],
        "epochs_trained": epochs,
        "params": record["backbone"]["params"],
        "seconds": record["seconds"],
        "seconds_per_image": _seconds_per_image(zoo.load(run)),
    }


def _that_fit(trial: zoo.Run, seconds: float) -> int:
    """How many epochs fit into so many seconds, by the last epoch of a short run and the choosing before it.

    The first epoch warms up. A step says how long training has taken until then.
    """
    events = [json.loads(line) for line in trial.metrics_path.read_text(encoding="utf-8").splitlines()]
    ends: dict[int, float] = {event["epoch"]: event["seconds"] for event in events if event["event"] == "step"}
    return max(1, round(seconds / (ends[2] - ends[1])))


@torch.inference_mode()
def _seconds_per_image(model: torch.nn.Module) -> float:
    """Median time of a pass through the network, for one image of a batch."""
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / BATCH


def table(record: dict[str, Any]) -> str:
    """The two single-task runs as one row, and a row for each joint way; differences are paired by seed."""
    first = record["rows"][0]
    epochs = first["key"]["epochs"]

    def found(way: str, epochs: int) -> list[Row]:
        return [row for row in record["rows"] if (row["key"]["way"], row["key"]["epochs"]) == (way, epochs)]

    alone = {way: found(way, epochs) for way in TASKS}
    longer = [found(way, 2 * epochs) for way in TASKS]
    seeds = sorted({row["key"]["seed"] for row in record["rows"]})
    lines = [["one network each", *_cells([*alone.values()], None)]]
    for way in JOINT:
        if rows := found(way, epochs):
            lines.append([f"`{way}`", *_cells([rows], alone)])
    beside = ""
    if all(longer):
        lines.append(["one network each, twice as long", *_cells(longer, alone)])
        gains = {way: _gains(TASKS[0], found(way, epochs), longer[0]) for way in JOINT}
        said = [f"`{way}` {interval(each)}" for way, each in gains.items() if each]
        beside = f"\n\nAgainst {TASKS[0]} alone for twice as long: {', '.join(said)} points."
    head = ["", *(text for name in TASKS for text in (f"{name}, %", "against its own, points")),
            "parameters", "ms an image", "training, s", "epochs"]  # fmt: skip
    limit = first["key"]["limit"]
    few = f", {limit} images of each class in each domain" if limit else ""
    return (
        f"{machine_line(record['machine'])} `{first['key']['backbone']}` on {' and '.join(ARCHIVES.values())} at "
        f"{SIDE} pixels{few}, {first['n']:,} images to report on; means over {len(seeds)} seed(s) with 95 % intervals "
        f"(Student's t), differences seed by seed. Time an image: a pass of {BATCH}, through both networks where there "
        f"are two.\n\n{markdown(head, lines)}{beside}"
    )


def _gains(task: str, rows: Iterable[Row], base: Iterable[Row]) -> list[float]:
    """What each of the rows answers of a task above the row of the same seed in `base`."""
    of = {row["key"]["seed"]: row["tasks"][task] for row in base}
    return [row["tasks"][task] - of[row["key"]["seed"]] for row in rows if row["key"]["seed"] in of]


def _cells(runs: Sequence[Sequence[Row]], base: Mapping[str, Sequence[Row]] | None) -> Iterable[str]:
    """A row's cells.

    Args:
        runs: Of one network, or of the two that answer together, each for every seed.
        base: The single-task runs by task; None where these are they.
    """
    for name in TASKS:
        own = [row for each in runs for row in each if name in row["tasks"]]
        yield interval([row["tasks"][name] for row in own])
        gained = _gains(name, own, base[name]) if base else []
        yield interval(gained) if gained else "-"
    yield f"{sum(each[0]['params'] for each in runs):,}"
    yield f"{1000 * sum(statistics.fmean(row['seconds_per_image'] for row in each) for each in runs):.2f}"
    yield f"{sum(statistics.fmean(row['seconds']['train'] for row in each) for each in runs):.0f}"
    yield " + ".join(f"{statistics.fmean(row['epochs_trained'] for row in each):.3g}" for each in runs)
