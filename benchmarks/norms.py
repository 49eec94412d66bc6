"""Norm statistics of the pretraining against those of the images at hand, on training images alone.

For each backbone and data set: how different the images look at the first norm, how many training images a linear probe
on the frozen features names rightly in cross-validation, with either statistics, and what zoo chooses by itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.jobs import WORK
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from zoo import data
from zoo.events import ignore
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import prepare
from zoo.training.loaded import Loaded
from zoo.training.norms.policy import IMAGES, SHIFTED
from zoo.training.norms.reestimate import features, recalibrate, shift
from zoo.training.probe import cross_validated

MOBILENET, RESNET18 = WORK["flowers12"].weights, WORK["tiny-25"].weights
# Backbone, weights, archive, side of the images in pixels, training images per class (None: all).
CASES: tuple[tuple[str, str | None, str, int, int | None], ...] = (
    ("resnet_nano", None, "tiny_imagenet_100.zip", 64, 10),
    ("resnet_nano", None, "cifar10.zip", 64, 100),
    ("resnet_nano", None, "cifar10.zip", 64, 20),
    ("resnet_nano", None, "cifar10.zip", 64, 5),
    ("resnet_nano", None, "pacs_photo.zip", 64, 100),
    ("resnet_nano", None, "pacs_sketch.zip", 64, 100),
    ("resnet_nano", None, "mnist_7k.zip", 64, 20),
    ("resnet18", RESNET18, "cifar10.zip", 64, 100),
    ("resnet18", RESNET18, "cifar10.zip", 64, 20),
    ("resnet18", RESNET18, "mnist_7k.zip", 64, 20),
    ("timm/mobilenetv2_100", MOBILENET, "hymenoptera.zip", 224, None),
    ("timm/mobilenetv2_100", MOBILENET, "flowers12.zip", 224, 40),
    ("timm/mobilenetv2_100", MOBILENET, "cifar10.zip", 96, 20),
    ("timm/mobilenetv2_100", MOBILENET, "pacs_sketch.zip", 128, 30),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights files")
    parser.add_argument("--seeds", type=int, default=3, help="of the few images, of the folds and of the order")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"rows": [_row(*case, arguments) for case in CASES]}


def _row(
    backbone: str, weights: str | None, archive: str, side: int, each: int | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    row: dict[str, Any] = {"backbone": backbone, "archive": archive, "side": side, "per_class": each, "shift": [],
                           "plain": [], "adapted": [], "chosen": []}  # fmt: skip
    for seed in range(arguments.seeds):
        recipe = Recipe(
            strategy="probe", image_size=side, train_per_class=each, cache="off", precision="fp32", seed=seed,
            weights="default" if weights is None else str(arguments.weights / weights),
        )  # fmt: skip
        reference = str(arguments.data / archive)
        row["chosen"].append(prepare(backbone, reference, recipe, ignore).work.settled.recalibrate)
        loaded = prepare(
            backbone, reference, Recipe.from_record(recipe.record() | {"recalibrate": "off"}), ignore
        ).loaded
        row["images"] = len(loaded.dataset.train)
        _judge(loaded, row)
    sys.stderr.write(f"{row}\n")
    return row


def _judge(loaded: Loaded, row: dict[str, Any]) -> None:
    seed = loaded.recipe.seed
    order = np.random.default_rng(seed).permutation(len(loaded.dataset.train)).tolist()[:IMAGES]
    part = loaded.dataset.train.some(order)

    def batches() -> data.EvaluationLoader:
        return data.eval_batches(part, config=loaded.config, batch_size=32)

    first = torch.cat([batch.images for batch in batches()][:4])
    row["shift"].append(shift(loaded.model, first, loaded.accelerator))
    for name in ("plain", "adapted"):
        if name == "adapted":
            recalibrate(loaded.model, batches(), loaded.accelerator)
        found, labels = features(loaded.model, batches(), loaded.accelerator)
        row[name].append(cross_validated(found.numpy(), labels.numpy(), seed=seed).accuracy)


def table(record: dict[str, Any]) -> str:
    head = ["backbone", "images", "side, px", "training images", "shift", "probe with the pretraining's, %",
            "with these images', %", "difference, points", "zoo's choice"]  # fmt: skip
    rows = []
    for row in record["rows"]:
        plain, adapted = 100 * np.array(row["plain"]), 100 * np.array(row["adapted"])
        on = row["chosen"].count("on")
        rows.append([
            f"`{row['backbone']}`", row["archive"], row["side"], f"{row['images']:,}", f"{np.mean(row['shift']):.2f}",
            f"{plain.mean():.1f}", f"{adapted.mean():.1f}", f"{(adapted - plain).mean():+.1f}",
            f"on in {on} of {len(row['chosen'])}",
        ])  # fmt: skip
    seeds = len(record["rows"][0]["chosen"])
    return (
        f"{machine_line(record['machine'])} Means over {seeds} seeds, in cross-validation on training images; zoo "
        f"looks closer where the shift exceeds {SHIFTED}.\n\n{markdown(head, rows)}"
    )
