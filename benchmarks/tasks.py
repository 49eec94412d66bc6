"""The pieces of work that fresh processes are measured on, and what a process is told of one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.samples import Samples, draw


@dataclass(frozen=True)
class Task:
    """One backbone on one data set, in one way of training."""

    kind: str  # "probe": the head alone; "finetune": all of it; "epoch": all of it, once
    backbone: str  # zoo's name
    arch: str  # timm's
    weights: str  # file in the weights folder
    data: str  # archive in the data folder
    image_size: int
    choices: Mapping[str, Any] = field(default_factory=dict)  # zoo's recipe
    images: Mapping[str, int] = field(default_factory=dict)  # per class: train, test, val


PROBE = {"strategy": "probe", "epochs": 5, "cache": "auto"}
FINETUNE = {"strategy": "lp-ft", "probe_epochs": 5, "epochs": 5, "cache": "auto"}
MOBILENET = ("timm/mobilenetv2_100", "mobilenetv2_100", "mobilenetv2_100.in1k.safetensors")
RESNET18 = ("resnet18", "resnet18", "resnet18.tiny_imagenet.safetensors")
NANO = ("resnet_nano", "test_resnet", "test_resnet.tiny_imagenet.safetensors")
FEW = {"train": 100, "test": 200}

TASKS = {
    "cifar10-probe": Task("probe", *NANO, "cifar10.zip", 64, PROBE, FEW),
    "cifar10-finetune": Task("finetune", *NANO, "cifar10.zip", 64, FINETUNE, FEW),
    "hymenoptera-probe": Task("probe", *MOBILENET, "hymenoptera.zip", 224, PROBE),
    "hymenoptera-finetune": Task("finetune", *MOBILENET, "hymenoptera.zip", 224, FINETUNE),
    "flowers12-probe": Task("probe", *MOBILENET, "flowers12.zip", 224, PROBE),
    "flowers12-finetune": Task("finetune", *MOBILENET, "flowers12.zip", 224, FINETUNE),
    # An image of each class for zoo to choose on, so that both train on the same images.
    "flowers12-epoch": Task(
        "epoch", *RESNET18, "flowers12.zip", 224, {"strategy": "finetune", "epochs": 1}, {"val": 1}
    ),
}


def add_arguments(parser: argparse.ArgumentParser, works: tuple[str, ...], *, seeds: int) -> None:
    """Where the archives and weights are, and how much of the work is done."""
    parser.add_argument("--work", nargs="+", default=list(works), choices=works)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--weights", type=Path, help="folder of the weights files")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--limit", type=int, help="at most so many images per class; to try things out")


def require_folders(arguments: argparse.Namespace) -> None:
    """Stop where images and weights are not named: only a table can be made without."""
    missing = [f"--{name}" for name in ("data", "weights") if getattr(arguments, name) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} must be named: folders of the archives and of the weights files")


def images(task: Task, into: Path, seed: int, arguments: argparse.Namespace) -> Samples:
    """The images of a task, drawn by a seed."""
    counts = dict(task.images)
    if arguments.limit is not None:
        counts |= {part: min(counts.get(part, arguments.limit), arguments.limit) for part in ("train", "test")}
    return draw(arguments.data / task.data, into, seed, **counts)


def job(task: Task, samples: Samples, weights: Path, seed: int, out: Path, **more: Any) -> dict[str, Any]:
    """What a fresh process is told: enough for zoo and for the others."""
    return {
        "data": str(samples.folder),
        "weights": str((weights / task.weights).resolve()),
        "image_size": task.image_size,
        "seed": seed,
        "out": str(out),
        "kind": task.kind,
        "arch": task.arch,
        "backbone": task.backbone,
        "choices": dict(task.choices),
        "curve": False,
        **more,
    }


def changed(task: Task, **choices: Any) -> Task:
    """The task with other choices of zoo's; None leaves one to zoo."""
    return replace(task, choices={**task.choices, **choices})
