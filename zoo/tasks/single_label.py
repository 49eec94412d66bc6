"""Single-label classification: scores for selection, and the whole result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.nn import functional

from zoo.tasks.outputs import TEMPERATURES, Outputs

BINS = 15  # of the calibration histogram, as in Guo et al. 2017

MISTAKES = 24  # most confident ones, kept for the report


def scores(outputs: Outputs) -> dict[str, float]:
    """What choosing an epoch goes by: accuracy (0 to 1), mean cross-entropy (nats), and the refinement error.

    That is the cross-entropy at the temperature at which it is least (Berta et al. 2025, "Rethinking Early Stopping:
    Refine, Then Calibrate"): how well classes are told apart, however sure of itself the network is.
    """
    logits, labels = outputs.logits, outputs.labels
    right = (logits.argmax(1) == labels).float().mean()
    refined = min(float(functional.cross_entropy(logits / each, labels)) for each in TEMPERATURES)
    return {
        "accuracy": float(right),
        "loss": float(functional.cross_entropy(logits, labels)),
        "refinement": refined,
    }


def measure(outputs: Outputs, classes: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """Everything that a result says about a set of images.

    Args:
        outputs: What the model said, with true labels.
        classes: Class names, in the head's order.
        ids: Name of each image, for the list of mistakes.

    Returns:
        Plain values: accuracy, its 95 % interval (Wilson 1927), top5, loss, macro_f1 (over the classes that occur),
        ece (Guo et al. 2017), n, baseline (the share of the commonest class), classes, confusion (rows: truth),
        calibration, mistakes (the most confident ones).
    """
    probabilities = outputs.logits.double().softmax(1).numpy()
    labels = outputs.labels.numpy()
    count, width = probabilities.shape
    guesses = probabilities.argmax(1)
    confidence = probabilities.max(1)
    right = guesses == labels
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : min(5, width)]
    confusion = np.bincount(labels * width + guesses, minlength=width * width).reshape(width, width)
    present, named, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    f1 = 2 * hits / np.maximum(present + named, 1)
    accuracy = float(right.mean())
    bins = _calibration(confidence, right)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return {
        "accuracy": accuracy,
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
            {
                "id": ids[index],
                "label": classes[labels[index]],
                "predicted": classes[guesses[index]],
                "probability": float(confidence[index]),
            }
            for index in map(int, worst)
        ],
    }


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which stays inside 0 to 1 also near its ends."""
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _calibration(confidence: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """The occupied bins of equal width, with mean confidence and accuracy in each."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        rows.append(
            {
                "lower": float(number / BINS),
                "upper": float((number + 1) / BINS),
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows
