"""Makes run folders that look like real ones, without training anything."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run

FLOWERS = ("daisy", "dandelion", "iris", "rose", "sunflower", "tulip", "water lily", "wild orchid", "poppy", "violet")
GROUPS = {"stem": 9_408, "layer1": 62_000, "layer2": 102_400, "layer3": 139_000, "layer4": 176_128, "head": 2_570}
PHASES = (("probe", 3, 3e-3, 5, 1.0), ("finetune", 8, 1e-3, 0, 0.5))  # name, epochs, rate, frozen groups, decay


def make_run(
    root: Path,
    *,
    classes: Sequence[str] = FLOWERS,
    per_class: int = 40,
    skill: float = 0.9,
    status: str = "finished",
    steps_per_epoch: int = 40,
    name: str = "resnet_nano-flowers",
    curves: bool = True,
    **changes: Any,
) -> Run:
    """A run folder with `run.json` and `metrics.jsonl`; `changes` replace top-level keys of the record.

    Without `curves` the metrics file is empty, which saves the time to draw them.
    """
    run = Run(root / name)
    run.path.mkdir(parents=True)
    lines = metrics(steps_per_epoch) if curves else []
    if status != "finished":
        lines = lines[: int(len(lines) * 0.6)]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.write_record({**record(classes, per_class, skill, status, steps_per_epoch, name), **changes})
    return run


def record(
    classes: Sequence[str], per_class: int, skill: float, status: str, steps_per_epoch: int, name: str
) -> dict[str, Any]:
    k = len(classes)
    return {
        "schema": 1,
        "zoo": "0.1.0",
        "kind": "classifier",
        "status": status,
        "name": name,
        "created": "2026-03-14T09:26:53+00:00",
        "backbone": {
            "name": "resnet/resnet_nano",
            "arch": "test_resnet",
            "plugin": "resnet",
            "distribution": "adaptzoo-resnet",
            "version": "0.1.0",
            "module": None,
            "params": 491_506,
            "weights": {
                "name": "tiny_imagenet",
                "source": "file",
                "license": "apache-2.0",
                "sha256": "3f" * 32,
            },
        },
        "dataset": {
            "ref": "/home/someone/secret place/flowers.zip",
            "name": "flowers",
            "fingerprint": "b5" * 16,
            "classes": list(classes),
            "counts": {
                "fit": {"n": 80 * k, "per_class": [80] * k},
                "choose": {"n": 20 * k, "per_class": [20] * k},
                "report": {"n": per_class * k, "per_class": [per_class] * k},
            },
            "selected_on": "val (cut from train)",
            "reported_on": "test",
            "license": "cc-by-4.0",
            "bad": [{"path": "rose/broken & torn.jpg", "error": "cannot identify image file"}],
            "notes": ["3 exact duplicates were kept on one side of the split"],
        },
        "recipe": Recipe(epochs=8, augment="strong", seed=7).record(),
        "resolved": {
            "precision": "bf16", "device": "cpu", "threads": 2, "batch_size": 32, "workers": 2, "lr": 1e-3,
            "norm": "live",
        },
        "plan": {
            "phases": [
                {
                    "name": phase, "epochs": epochs, "steps": epochs * steps_per_epoch, "schedule": "one-cycle",
                    "groups": [
                        {
                            "name": group, "params": params, "frozen": i < frozen,
                            "lr": 0.0 if i < frozen else lr * decay ** (len(GROUPS) - 1 - i),
                            "weight_decay": 0.0 if i < frozen else 0.05,
                            "norm": "none" if group == "head" else "frozen" if i < frozen else "live",
                        }
                        for i, (group, params) in enumerate(GROUPS.items())
                    ],
                }
                for phase, epochs, lr, frozen, decay in PHASES
            ],
            "seconds": 61.0,
            "memory_bytes": 412_000_000,
            "notes": ["biases and norm layers get no weight decay"],
        },
        "data_config": {
            "input_size": [3, 64, 64], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "interpolation": "bicubic", "crop_pct": 1.0,
        },
        "environment": {
            "python": "3.11.7", "platform": "Linux-6.1-x86_64", "cpu": "AMD EPYC 9R14", "cores": 2, "torch": "2.15.0",
            "timm": "1.0.31", "zoo": "0.1.0", "device": "cpu",
        },
        "result": result(classes, per_class, skill) if status == "finished" else None,
        "best": {"phase": "finetune", "epoch": 6, "accuracy": 0.924, "loss": 0.31},
        "seconds": {"setup": 3.1, "data": 1.2, "train": 69.3, "data_wait": 3.5, "total": 78.4}
        if status == "finished"
        else None,
        "images_per_second": 512.0,
        "lr_finder": None,
    }  # fmt: skip


def result(classes: Sequence[str], per_class: int, skill: float) -> dict[str, Any]:
    rng, k = np.random.default_rng(1), len(classes)
    matrix = np.zeros((k, k), dtype=int)
    mistakes = []
    bins = [[0, 0.0, 0] for _ in range(15)]  # images, summed confidence, hits
    for true in range(k):
        ability = min(1.0, skill + rng.uniform(-0.12, 0.1))
        for image in range(per_class):
            hit = rng.random() < ability
            near = (true + int(rng.integers(1, 3))) % k
            guess = true if hit or near == true else near
            matrix[true, guess] += 1
            confidence = float(np.clip(rng.beta(9, 1.3) if guess == true else rng.beta(4, 2.2), 1 / k, 0.9999))
            entry = bins[min(14, int(confidence * 15))]
            entry[0] += 1
            entry[1] += confidence
            entry[2] += guess == true
            if guess != true:
                mistakes.append(
                    {
                        "id": f"{true}/img_{image:04d}.jpg",
                        "label": classes[true],
                        "predicted": classes[guess],
                        "probability": confidence,
                    }
                )
    n = per_class * k
    hits = np.diag(matrix)
    f1 = 2 * hits / np.maximum(1, matrix.sum(0) + matrix.sum(1))
    accuracy = float(hits.sum() / n)
    calibration = [
        {
            "lower": i / 15, "upper": (i + 1) / 15, "n": c,
            "confidence": s / c if c else None, "accuracy": h / c if c else None,
        }
        for i, (c, s, h) in enumerate(bins)
    ]  # fmt: skip
    ece = sum(b["n"] / n * abs(b["confidence"] - b["accuracy"]) for b in calibration if b["n"])
    return {
        "accuracy": accuracy,
        "top5": min(1.0, accuracy + 0.05),
        "loss": 0.31,
        "macro_f1": float(f1.mean()),
        "ece": ece,
        "n": n,
        "split": "test",
        "selected_on": "val (cut from train)",
        "interval": wilson(int(hits.sum()), n),
        "classes": [
            {"name": name, "n": per_class, "accuracy": float(hits[i] / per_class)} for i, name in enumerate(classes)
        ],
        "confusion": matrix.tolist(),
        "calibration": calibration,
        "baseline": 1 / k,
        "mistakes": sorted(mistakes, key=lambda entry: -entry["probability"])[:24],
    }


def wilson(hits: int, n: int) -> list[float]:
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]


def metrics(steps_per_epoch: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    step, total = 0, sum(phase[1] for phase in PHASES) * steps_per_epoch
    for phase, epochs, lr, frozen, decay in PHASES:
        steps = epochs * steps_per_epoch
        for index in range(steps):
            step += 1
            x = index / steps
            shape = 0.04 + 0.96 * (x / 0.25 if x < 0.25 else (1 + math.cos(math.pi * (x - 0.25) / 0.75)) / 2)
            loss = 0.45 + 1.9 * math.exp(-4.5 * step / total) + rng.normal(0, 0.12)
            rates = {
                group: lr * decay ** (len(GROUPS) - 1 - i) * shape for i, group in enumerate(GROUPS) if i >= frozen
            }
            epoch = index // steps_per_epoch + 1
            lines.append({"event": "step", "phase": phase, "epoch": epoch, "step": step, "loss": loss, "lr": rates,
                          "seconds": 0.1 * step})  # fmt: skip
            if (index + 1) % steps_per_epoch == 0:
                done = step / total
                lines.append({"event": "epoch", "phase": phase, "epoch": epoch, "step": step,
                              "train_loss": 0.45 + 1.9 * math.exp(-4.5 * done),
                              "val_loss": 0.38 + 1.7 * math.exp(-4 * done) + rng.normal(0, 0.02),
                              "val_accuracy": 0.93 - 0.6 * math.exp(-4 * done) + rng.normal(0, 0.006),
                              "seconds": 0.1 * step, "best": phase == "finetune" and epoch == 6})  # fmt: skip
    return lines


def pictures(record: dict[str, Any], side: int = 96) -> dict[str, Image.Image]:
    """A made-up picture for every mistake of the record."""
    rng = np.random.default_rng(2)
    made = {}
    for entry in (record["result"] or {}).get("mistakes", ()):
        low = rng.integers(60, 200, size=(4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        middle, petals = side / 2, int(rng.integers(5, 9))
        colour = tuple(int(v) for v in rng.integers(120, 255, size=3))
        for petal in range(petals):
            angle = 2 * math.pi * petal / petals
            x, y, r = middle + side / 4 * math.cos(angle), middle + side / 4 * math.sin(angle), side / 7
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        draw.ellipse((middle - side / 9, middle - side / 9, middle + side / 9, middle + side / 9), fill=(250, 220, 60))
        made[entry["id"]] = image
    return made
