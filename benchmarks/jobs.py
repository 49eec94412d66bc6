"""The pieces of work that recipes are chosen and judged on, and how one of them is run."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zoo


@dataclass(frozen=True)
class Work:
    """One backbone on one data set."""

    backbone: str
    data: str  # archive in the data folder
    weights: str | None = None  # file in the weights folder; None: the plugin's own
    choices: Mapping[str, Any] = field(default_factory=dict)


WORK = {
    "hymenoptera": Work("timm/mobilenetv2_100", "hymenoptera.zip", "mobilenetv2_100.in1k.safetensors"),
    "flowers12": Work("timm/mobilenetv2_100", "flowers12.zip", "mobilenetv2_100.in1k.safetensors"),
    "cifar10-100": Work("resnet_nano", "cifar10.zip", choices={"train_per_class": 100}),
    "tiny-25": Work(
        "resnet18", "tiny_imagenet_100.zip", "resnet18.tiny_imagenet.safetensors", choices={"train_per_class": 25}
    ),
}


def run(work: Work, choices: Mapping[str, Any], *, data: Path, weights: Path, scratch: Path) -> dict[str, Any]:
    """Adapt once in this process and return what the run's record says, as one flat row."""
    chosen = {**work.choices, **choices}
    if work.weights is not None and chosen.get("strategy") != "scratch":
        chosen.setdefault("weights", str(weights / work.weights))
    shutil.rmtree(scratch, ignore_errors=True)
    started = time.perf_counter()
    finished = zoo.adapt(work.backbone, str(data / work.data), zoo.Recipe(**chosen), out=scratch)
    record = finished.record
    shutil.rmtree(scratch)
    row = {
        "accuracy": record["result"]["accuracy"],
        "interval": record["result"]["interval"],
        "loss": record["result"]["loss"],
        "n": record["result"]["n"],
        "split": record["result"]["split"],
        "selected_on": record["result"]["selected_on"],
        "choosing_accuracy": record["best"]["accuracy"],
        "choosing_loss": record["best"]["loss"],
        "best": f"{record['best']['phase']} {record['best']['epoch']}",
        "seconds": record["seconds"],
        "wall": round(time.perf_counter() - started, 2),
        "choices": {key: value for key, value in chosen.items() if key != "weights"},
    }
    sys.stderr.write(
        f"{work.backbone} {work.data} {dict(choices)}: choosing {row['choosing_accuracy']:.4f} "
        f"(loss {row['choosing_loss']:.4f}), reported {row['accuracy']:.4f}, {row['wall']:.0f} s\n"
    )
    return row
