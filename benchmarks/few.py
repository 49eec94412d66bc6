"""Few images: the batch size, judged by training images that take no part in training; no timings.

Each seed draws the few images, the ones that judge, the cut to choose by, the head and the order. Whatever an archive
has to report on stays untouched.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from benchmarks.align import told
from benchmarks.jobs import WORK
from benchmarks.machine import describe_machine
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results, Row
from benchmarks.results import add_arguments as add_results
from benchmarks.samples import fold

MOBILENET, RESNET18 = WORK["flowers12"].weights, WORK["tiny-25"].weights
# Backbone, weights, strategy, archive, side in pixels, images a class to train and choose on, and to judge by.
CASES = (
    ("resnet_nano", None, "lp-ft", "cifar10.zip", 64, 5, 60),
    ("resnet_nano", None, "lp-ft", "cifar10.zip", 64, 10, 60),
    ("resnet_nano", None, "lp-ft", "cifar10.zip", 64, 20, 60),
    ("resnet_nano", None, "lp-ft", "cifar10.zip", 64, 40, 60),
    ("resnet_nano", None, "scratch", "cifar10.zip", 64, 20, 60),
    ("resnet_nano", None, "probe", "cifar10.zip", 64, 10, 60),
    ("resnet_nano", None, "finetune", "cifar10.zip", 64, 10, 60),
    ("resnet_nano", None, "lp-ft", "mnist_7k.zip", 64, 5, 60),
    ("resnet18", RESNET18, "lp-ft", "cifar10.zip", 64, 10, 60),
    ("timm/mobilenetv2_100", MOBILENET, "lp-ft", "hymenoptera.zip", 128, 15, 60),
    ("timm/mobilenetv2_100", MOBILENET, "lp-ft", "hymenoptera.zip", 128, 60, 60),
    ("timm/mobilenetv2_100", MOBILENET, "lp-ft", "flowers12.zip", 128, 5, 40),
    ("timm/mobilenetv2_100", MOBILENET, "lp-ft", "flowers12.zip", 128, 20, 40),
    ("timm/mobilenetv2_100", MOBILENET, "lp-ft", "pacs_photo.zip", 128, 5, 40),
)
KEY = ("backbone", "weights", "strategy", "archive", "side", "each", "judges")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--weights", type=Path, help="folder of the weights files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 16, 8], help="images of a batch")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = Results("few", describe_machine(), arguments, timed=False)
    if not arguments.only_table:
        if arguments.data is None or arguments.weights is None:
            raise SystemExit("--data and --weights must be named: the folders of the archives and of the weights")
        for case in CASES:
            for seed in range(arguments.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    for size in arguments.sizes:
                        key = {**dict(zip(KEY, case, strict=True)), "seed": seed, "batch": size}
                        kept.get(key, partial(_once, key, arguments, Path(folder)))
    return {"rows": kept.rows, "machines": kept.machines, "sizes": arguments.sizes}


def _once(key: dict[str, Any], arguments: argparse.Namespace, folder: Path) -> Row:
    images = folder / "images"
    if not images.exists():
        fold(arguments.data / key["archive"], images, key["seed"], train=key["each"], judge=key["judges"])
    weights = "default" if key["weights"] is None else str(arguments.weights / key["weights"])
    recipe = zoo.Recipe(strategy=key["strategy"], weights=weights, image_size=key["side"], batch_size=key["batch"],
                        seed=key["seed"], threads=1, precision="fp32")  # fmt: skip
    record = zoo.adapt(key["backbone"], str(images), recipe, out=folder / str(key["batch"])).record
    return {"accuracy": record["result"]["accuracy"], "n": record["result"]["n"],
            "steps": record["plan"]["phases"][-1]["steps_per_epoch"]}  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """A row for each case: the mean of the seeds, and how much smaller batches differ, seed by seed."""
    sizes: Sequence[int] = record["sizes"]
    first, *others = sizes
    head = ["backbone", "strategy", "archive", "side, px", "images a class", f"batches of {first}, %"]
    head += [f"of {size}: difference, points" for size in others]
    rows = []
    for case in CASES:
        key = dict(zip(KEY, case, strict=True))
        found = {(row["key"]["batch"], row["key"]["seed"]): row for row in record["rows"]
                 if key.items() <= row["key"].items()}  # fmt: skip
        seeds = sorted(seed for size, seed in found if size == first)
        if not seeds:
            continue
        cells = [f"{100 * np.mean([found[first, seed]['accuracy'] for seed in seeds]):.1f}"]
        for size in others:
            both = [seed for seed in seeds if (size, seed) in found]
            cells.append(told([found[size, seed]["accuracy"] - found[first, seed]["accuracy"] for seed in both]))
        rows.append([f"`{key['backbone']}`", f"`{key['strategy']}`", key["archive"], key["side"], key["each"], *cells])
    every = {row["key"]["seed"] for row in record["rows"]}
    return (
        f"{machine_line(*record['machines'])} Accuracy on images of the training part that take no part in training; "
        f"{len(every)} seeds, differences seed by seed with 95 % intervals (Student's t). A fifth of the images of "
        f"a class chooses the epoch, then all train again.\n\n{markdown(head, rows)}"
    )
