"""What cached features do to predictions and to accuracy: what docs/benchmarks.md publishes about the cache.

Three parts. `agreement`: on real images, the class that a pretrained network names with its frozen part folded, in
bfloat16, or both, against the plain float32 network. `accuracy`: the same training with and without cached features,
no augmentation, paired by seed. `views`: training from K kept views against fresh augmentation in every epoch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks.jobs import WORK, run
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from zoo import data
from zoo.data.sources.dispatch import open_listing
from zoo.models import layer_groups, lookup, preprocessing, saved
from zoo.recipes.recipe import Recipe
from zoo.runs.load import data_options
from zoo.training.frozen_cache.fold_norms import folded_parts
from zoo.training.frozen_cache.split import Splitter

# Backbone, weights, archive and the split of it that is looked at (None: all), and whether a probe of that data set
# gives the network a head first. Without one it keeps the head of its pretraining.
NETWORKS = (
    ("timm/mobilenetv2_100", "mobilenetv2_100.in1k.safetensors", "hymenoptera.zip", None, True),
    ("timm/mobilenetv2_100", "mobilenetv2_100.in1k.safetensors", "flowers12.zip", None, True),
    ("timm/mobilenetv2_100", "mobilenetv2_100.in1k.safetensors", "flowers12.zip", None, False),
    ("resnet18", "resnet18.tiny_imagenet.safetensors", "tiny_imagenet_100.zip", "val", False),
    ("resnet_nano", None, "tiny_imagenet_100.zip", "val", False),
)
PROBE = Recipe(strategy="probe", epochs=10, augment="none", precision="fp32", cache="on")
WAYS = {"folded, fp32": (True, False), "plain, bf16": (False, True), "folded, bf16": (True, True)}
STRATEGIES = ("probe", "partial")
VIEWS = (1, 2, 4, 10)  # of 10 epochs
CHUNK = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: the machine's cores)")
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=list(PARTS))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZOO_CACHE"] = f"{folder}/cache"  # nothing that an earlier run has kept
        return {part: PARTS[part](arguments, Path(folder)) for part in arguments.part}


def agreement(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """How often the frozen part's shortcuts change the predicted class, split before the last group and halfway."""
    rows = []
    for name, file, archive, split, probed in NETWORKS:
        spec = lookup.get(name)
        chosen = str(arguments.weights / file) if file else "default"
        reference = str(arguments.data / archive)
        if probed:
            recipe = replace(PROBE, weights=chosen, threads=arguments.threads)
            model = saved.load(zoo.adapt(name, reference, recipe, out=folder / archive).path)
        else:
            model = saved.build(spec, weights=saved.resolve_weights(spec, chosen))
        model.eval().to(memory_format=torch.channels_last)
        config = preprocessing.data_config(model)
        found = layer_groups.assign(model, spec)
        splitter = Splitter(model, found, config.input_size)
        cuts = {}
        for place in (len(found) // 2, len(found) - 1):
            cut = splitter.split([group.name for group in found[:place]])
            assert cut is not None
            cuts[cut.group] = cut
        exact: list[torch.Tensor] = []
        said: dict[tuple[str, str], list[torch.Tensor]] = {(group, way): [] for group in cuts for way in WAYS}
        folded = {group: folded_parts(model, cut) for group, cut in cuts.items()}
        for images in _images(reference, split, config):
            with torch.no_grad():
                exact.append(model(images))
                for (group, way), logits in said.items():
                    folds, half = WAYS[way]
                    prefix = cuts[group].prefix(model, folded[group] if folds else None)
                    with torch.autocast("cpu", torch.bfloat16, enabled=half):
                        activations = prefix(images)
                    logits.append(cuts[group].suffix(model)(activations.float()))
        truth = torch.cat(exact)
        for (group, way), logits in said.items():
            other = torch.cat(logits)
            error = (other - truth).abs()
            rows.append(
                {
                    "backbone": name,
                    "data": archive,
                    "head": "of a probe" if probed else "of the pretraining",
                    "classes": truth.shape[1],
                    "images": len(truth),
                    "before": group,
                    "prefix": way,
                    "agreement": float((other.argmax(1) == truth.argmax(1)).float().mean()),
                    "mean_error": float(error.mean()),
                    "largest_error": float(error.max()),
                    "logits_std": float(truth.std()),
                }
            )
            sys.stderr.write(f"{rows[-1]}\n")
    return rows


def accuracy(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """With and without cached features, no augmentation."""
    rows = []
    for strategy in STRATEGIES:
        for cache in ("off", "on"):
            rows.append(_trained(arguments, folder, strategy=strategy, augment="none", cache=cache))
    return rows


def views(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """K kept views against fresh augmentation in every epoch."""
    rows = []
    for strategy in STRATEGIES:
        rows.append(_trained(arguments, folder, strategy=strategy, cache="off"))
        rows += [_trained(arguments, folder, strategy=strategy, cache="on", cache_views=count) for count in VIEWS]
    return rows


PARTS = {"agreement": agreement, "accuracy": accuracy, "views": views}


def _images(reference: str, split: str | None, config: Any) -> Iterator[torch.Tensor]:
    """Batches of all images of a data set, or of one split, as evaluation sees them."""
    options = data_options(Recipe(), config)
    listing = open_listing(reference, options, None)
    for each in [split] if split else [name for name, items in listing.splits.items() if items]:
        found = data.open_evaluation(reference, listing.classes, options, split=each)
        for batch in data.eval_batches(found.part, config=config, batch_size=CHUNK):
            yield batch.images


def _trained(arguments: argparse.Namespace, folder: Path, **choices: Any) -> dict[str, Any]:
    runs = [
        run(
            WORK["cifar10-100"],
            {**choices, "seed": seed, "threads": arguments.threads},
            data=arguments.data,
            weights=arguments.weights,
            scratch=folder / "run",
        )
        for seed in range(arguments.seeds)
    ]
    return {**choices, "accuracy": [row["accuracy"] for row in runs], "n": runs[0]["n"], "runs": runs}


def table(record: Mapping[str, Any]) -> str:
    """The three parts as Markdown, those that were measured."""
    lines = [machine_line(record["machine"])]
    if "agreement" in record:
        head = ("backbone", "images", "head", "split before", "frozen part", "same class, %", "mean error of a logit",
                "largest", "logits' standard deviation")  # fmt: skip
        rows = map(_agreement_row, record["agreement"])
        lines += ["", "The class that is named, against the plain float32 network:", "", markdown(head, rows)]
    for part, text in (
        ("accuracy", "With and without cached features, without augmentation"),
        ("views", "From K kept views, light augmentation, against fresh views in every one of 10 epochs"),
    ):
        if part in record:
            lines += ["", _paired_text(text, record[part]), "", _paired(record[part])]
    return "\n".join(lines)


def _agreement_row(row: Mapping[str, Any]) -> list[str]:
    return [
        f"`{row['backbone']}`",
        f"{row['images']:,} of {row['data']}",
        f"{row['head']}, {row['classes']} classes",
        f"`{row['before']}`",
        row["prefix"],
        f"{100 * row['agreement']:.2f}",
        f"{row['mean_error']:.2g}",
        f"{row['largest_error']:.2g}",
        f"{row['logits_std']:.1f}",
    ]


def _paired_text(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"{text}: `resnet_nano`, cifar10.zip, 100 images a class, accuracy in % of {rows[0]['n']:,} test images, "
        "each seed; differences are paired by seed."
    )


def _paired(rows: Sequence[Mapping[str, Any]]) -> str:
    base: Mapping[str, Any] = {}
    lines = []
    for row in rows:
        base = row if row["cache"] == "off" else base
        points = [100 * (mine - other) for mine, other in zip(row["accuracy"], base["accuracy"], strict=True)]
        kept = "none" if row["cache"] == "off" else row.get("cache_views") or 1
        lines.append(
            (f"`{row['strategy']}`", kept, ", ".join(f"{100 * value:.2f}" for value in row["accuracy"]),
             f"{100 * statistics.mean(row['accuracy']):.2f}",
             "" if row is base else f"{statistics.mean(points):+.2f}",
             "" if row is base else f"{max(points, key=abs):+.2f}")
        )  # fmt: skip
    return markdown(
        ("strategy", "views kept", "each seed", "mean", "mean difference, points", "largest difference"), lines
    )
