"""Single-label classification: cross-entropy, accuracy, calibration, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.tasks.kind import MISTAKES, Column, Kind, LossOptions, TaskPrediction, Values, mistake, ranked
from zoo.tasks.outputs import Outputs
from zoo.tasks.schema import FACTS, ONE, Task, whole_numbers

BINS = 15  # of the calibration histogram, as in Guo et al. 2017
UNKNOWN = -1  # class of an image without a target
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {}
"""Losses besides cross-entropy, by name: logits and shares of the classes, both (N, classes), give (N,) in nats."""


class SingleLabel(Kind):
    """One class of each image."""

    facts = FACTS[ONE]
    purpose = "to tell {classes} apart"
    usage = 'print(task["name"], names[mine.argmax()])'
    shown = (("top-5 accuracy", "top5", "%"), ("loss", "loss", ".4f"), ("macro F1", "macro_f1", ".4f"),
             ("calibration error", "ece", ".4f"))  # fmt: skip

    def claims(self, column: Column) -> str:
        """Every column; the note says that whole numbers may have an order."""
        found = {text for text in column.texts if text is not None}
        if not found or not whole_numbers(found):
            return ""
        return (
            f"task {column.name}: its {len(found)} whole numbers are taken for classes; "
            f"if their order means something write …:{column.place[1]}:ordinal"
        )

    def counts(self, task: Task, targets: Values) -> list[int]:
        """Images of each class: a table of flags would take a gigabyte for ImageNet."""
        known = targets[np.isfinite(targets)].astype(np.int64)
        found: list[int] = np.bincount(known, minlength=len(task.classes)).tolist()
        return found

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """Cross-entropy or what `LOSSES` names, with label smoothing."""
        known = targets[:, 0].isfinite()
        if options.name in LOSSES:
            classes = targets[known, 0].long()
            return class_losses(options.name, logits[known], classes, options.smoothing).sum() / max(1, len(classes))
        classes = targets[:, 0].nan_to_num(nan=UNKNOWN).long()
        total = functional.cross_entropy(
            logits, classes, ignore_index=UNKNOWN, label_smoothing=options.smoothing, reduction="sum"
        )
        return total / known.sum().clamp(min=1)

    def nats(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with torch's own mean."""
        return functional.cross_entropy(logits, targets[:, 0].long())

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """Accuracy."""
        return float((logits.argmax(1) == targets[:, 0]).float().mean())

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """See `measure`."""
        return measure(Outputs(logits, targets[:, 0].long()), task.classes, ids)

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The most probable classes."""
        best = [ranked(shares, task, top) for shares in logits.softmax(1)]
        return [TaskPrediction(*shares[0], top=shares) for shares in best]


def class_losses(name: str, logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """A loss of `LOSSES` for (N, classes) logits and (N,) classes, or (N, classes) shares that are smoothed already."""
    if targets.ndim == 1:
        # Label smoothing (Szegedy et al. 2016): a share of each target goes to all classes.
        targets = functional.one_hot(targets, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return LOSSES[name](logits, targets)


def measure(outputs: Outputs, classes: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """All measures of outputs with known classes.

    Plain values: accuracy, its 95 % interval (Wilson 1927), top5, loss, macro_f1 (over the classes that occur), ece
    (Guo et al. 2017), n, baseline (the share of the commonest class), classes, confusion (rows: truth), calibration,
    mistakes (the most confident ones). `classes` are in the head's order; `ids` names the images.
    """
    probabilities, labels = outputs.logits.double().softmax(1).numpy(), outputs.labels.numpy()
    count, width = probabilities.shape
    guesses, confidence = probabilities.argmax(1), probabilities.max(1)
    right = guesses == labels
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    # A pair of truth and guess as one number, counted.
    confusion = np.bincount(labels * width + guesses, minlength=width * width).reshape(width, width)
    present, predicted, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    f1 = 2 * hits / np.maximum(present + predicted, 1)
    bins = _calibration(confidence, right)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return {
        "accuracy": float(right.mean()),
        "interval": list(wilson(int(right.sum()), count)),
        "top5": float((best == labels[:, None]).any(1).mean()),
        "loss": float(functional.cross_entropy(outputs.logits.double(), outputs.labels)),
        "macro_f1": float(f1[present > 0].mean()),
        "ece": float(sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in bins) / count),
        "n": count,
        "baseline": float(present.max() / count),
        "classes": [
            {"name": name, "n": int(n), "accuracy": float(hit / n) if n else None}
            for name, n, hit in zip(classes, present, hits, strict=True)
        ],
        "confusion": confusion.tolist(),
        "calibration": bins,
        "mistakes": [
            mistake(ids[at], classes[labels[at]], classes[guesses[at]], float(confidence[at])) for at in map(int, worst)
        ],
    }


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which stays within 0 and 1."""
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _calibration(confidence: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """The occupied bins of equal width, with mean confidence and accuracy in each."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "lower": float(number / BINS),
            "upper": float((number + 1) / BINS),
            "n": int((place == number).sum()),
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(right[place == number].mean()),
        }
        for number in np.unique(place)
    ]
