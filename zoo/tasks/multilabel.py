"""Multi-label classification: binary cross-entropy, asymmetric loss, average precision, thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.base.text import percent
from zoo.tasks import kind
from zoo.tasks.kind import Column, Flags, Kind, LossOptions, TaskPrediction, Unfit, Values, mistake
from zoo.tasks.schema import FACTS, MANY, NAN, Target, Task, in_order

RESAMPLES = 200  # of the images, for the interval
FEW = 5  # images with a label; with fewer, a threshold of its own would be chance

Each = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

HALF = 0.5  # the threshold of a label before any is chosen
# As in most of the paper's experiments: easy negatives weigh less, the easiest nothing.
GAMMA_ABSENT, MARGIN = 4, 0.05


class MultiLabel(Kind):
    """Several labels of an image that do not exclude each other."""

    facts = FACTS[MANY]
    purpose = "to give each image those of {classes} that it has"
    usage = 'print(task["name"], [name for name, p, t in zip(names, mine.sigmoid(), task["thresholds"]) if p >= t])'
    shown = (("micro F1", "micro_f1", ".4f"), ("macro F1", "macro_f1", ".4f"), ("every label right", "accuracy", "%"),
             ("loss", "loss", ".4f"))  # fmt: skip

    def claims(self, column: Column) -> str | None:
        """Cells hold lists or the separator."""
        return "" if column.several else None

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """The labels are those of the training images, or of a model that is being evaluated."""
        training = [labels or () for labels, trained in zip(column.labels, column.trained, strict=True) if trained]
        classes = column.known.classes if column.known else in_order(chain(*training))
        if not classes:
            raise Unfit("no training image has a label")
        kind.refuse_unknown({label for labels in column.labels for label in labels or ()}, classes, self.facts.noun)
        sets = [None if labels is None else set(labels) for labels in column.labels]
        targets = [tuple(NAN if labels is None else float(name in labels) for name in classes) for labels in sets]
        return Task(column.name, self.facts.name, classes), targets

    def strata(self, task: Task, targets: Values) -> Flags:
        """The labels."""
        flags: Flags = targets == 1.0
        return flags

    def lacks(self, task: Task, targets: Values) -> tuple[str, str] | None:
        """At least one image must have a label."""
        why = "there is nothing to rank before anything else, so it cannot be told how good a model is"
        return None if (targets == 1.0).any() else ("any of the labels", why)

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """See `known_loss` and `LOSSES`."""
        return known_loss(logits, targets, LOSSES.get(options.name, cross_entropy), options.label_smoothing)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """Mean average precision; 0 if no image has any label."""
        area = mean_ap(logits, targets)
        return 0.0 if math.isnan(area) else area

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """See `measure_labels`."""
        return measure_labels(logits, targets, task.classes, thresholds(task), ids)

    def calibrate(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> Task:
        """The task with a threshold for each label."""
        return replace(task, thresholds=choose_thresholds(logits, targets))

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The labels above their thresholds, and the most probable ones."""
        found = []
        for shares in logits.sigmoid():
            pairs = zip(task.classes, shares.tolist(), thresholds(task), strict=True)
            over = [(name, share) for name, share, least in pairs if share >= least]
            best = tuple(sorted(over, key=lambda pair: -pair[1]))
            found.append(TaskPrediction(top=kind.ranked(shares, task, top), labels=best))
        return found

    def table(self, result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        """The labels with their measures."""
        rows = [[row["name"], str(row["n"]), *(percent(row[key]) for key in ("ap", "f1", "precision", "recall")),
                 f"{row['threshold']:.3f}"] for row in result["labels"]]  # fmt: skip
        return ["label", "images", "AP", "F1", "precision", "recall", "threshold"], rows


def thresholds(task: Task) -> Sequence[float]:
    """The probability from which each label is predicted."""
    return task.thresholds or [HALF] * len(task.classes)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The binary cross-entropy of each label, (N, labels), nats."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def asymmetric(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The asymmetric loss of each label, (N, labels).

    Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification".
    With p the probability and p_m = max(p - m, 0): -log p if the label is present, which the paper weighs by
    (1 - p)^g+ with g+ = 0; -p_m^g- log(1 - p_m) if it is absent.
    """
    shifted = (logits.sigmoid() - MARGIN).clamp(min=0)
    absent = -(shifted**GAMMA_ABSENT) * torch.log1p(-shifted)
    return -targets * functional.logsigmoid(logits) + (1 - targets) * absent


LOSSES: dict[str, Each] = {"bce": cross_entropy, "asymmetric": asymmetric}


def known_loss(
    logits: torch.Tensor, truth: torch.Tensor, each: Each = cross_entropy, smoothing: float = 0.0
) -> torch.Tensor:
    """The mean loss over the known labels, nats; 0 if none is known.

    Logits and truth are (N, labels), truth 1, 0, or NaN if unknown. Smoothing s turns 1 into 1 - s/2 and 0 into s/2.
    """
    known = truth.isfinite()
    targets = truth.nan_to_num() * (1 - smoothing) + smoothing / 2
    return (each(logits, targets) * known).sum() / known.sum().clamp(min=1)


def average_precision(scores: Values, truth: Values, weights: Values | None = None) -> Values:
    """Area under the precision-recall curve as a step function: the sum of precision times the increase of recall.

    Args:
        scores: (N,), higher if the label is more likely.
        truth: (N,), 1 or 0.
        weights: (R, N), how often each image counts in each of R resamples; None: once.

    Returns:
        (R,) or (1,); NaN if no image has the label.
    """
    order = np.argsort(-scores, kind="stable")
    times = np.ones((1, len(scores))) if weights is None else weights
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of equal scores
    hits = np.cumsum(times[:, order] * truth[order], axis=1)[:, last]
    called = np.cumsum(times[:, order], axis=1)[:, last]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, hits / called, 0.0)
        area: Values = (np.diff(hits, axis=1, prepend=0.0) * precision).sum(1) / hits[:, -1]
    return area


def mean_ap(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean of the average precisions of the labels that some image has; NaN if there are none."""
    columns = _columns(logits.double().numpy(), truth.double().numpy())
    found = [average_precision(scores, real)[0] for scores, real in columns if real.any()]
    return float(np.mean(found)) if found else math.nan


def choose_thresholds(logits: torch.Tensor, truth: torch.Tensor) -> tuple[float, ...]:
    """The threshold of each label with the highest F1 on these images.

    A label of fewer than `FEW` images gets the threshold with the highest micro-F1 of all labels.
    """
    known = _columns(logits.double().numpy(), truth.double().numpy())
    columns = [(torch.from_numpy(scores).sigmoid().numpy(), real) for scores, real in known]
    shared = _best_threshold(*map(np.concatenate, zip(*columns, strict=True)))
    return tuple(_best_threshold(scores, real) if real.sum() >= FEW else shared for scores, real in columns)


def measure_labels(
    logits: torch.Tensor, truth: torch.Tensor, labels: Sequence[str], thresholds: Sequence[float], ids: Sequence[str]
) -> dict[str, Any]:
    """All measures of a multi-label task.

    Args:
        logits: (N, labels).
        truth: (N, labels): 1, 0, or NaN if unknown.
        labels: Their names.
        thresholds: The probability from which each is predicted.
        ids: Name of each image.

    Returns:
        Plain values: map with its 95 % interval (bootstrap over images), micro_f1, macro_f1 (over labels that occur),
        accuracy (share of images with every label right), loss (nats per label), n, baseline (the map of guessing by
        how common labels are), labels (n, ap, f1, precision, recall, threshold), mistakes.
    """
    probabilities, real = logits.double().sigmoid().numpy(), truth.double().numpy()
    known, present = np.isfinite(real), real == 1
    predicted = probabilities >= np.asarray(thresholds)
    # For each label: true positives, predicted positives, positives.
    counts: list[list[int]] = np.stack([predicted & present, predicted & known, present]).sum(1).T.tolist()
    rows: list[dict[str, Any]] = []
    common = []
    for name, threshold, (scores, column), (hits, called, positive) in zip(
        labels, thresholds, _columns(probabilities, real), counts, strict=True
    ):
        row = {"name": name, "n": positive, "ap": None, "f1": None, "precision": hits / called if called else None,
               "recall": None, "threshold": float(threshold)}  # fmt: skip
        if positive:
            row["ap"] = float(average_precision(scores, column)[0])
            row["f1"], row["recall"] = _f1(hits, called, positive), hits / positive
            common.append(positive / len(column))
        rows.append(row)
    areas, f1s = ([row[key] for row in rows if row["n"]] for key in ("ap", "f1"))
    mean = float(np.mean(areas)) if areas else None
    return {
        "map": mean,
        "interval": None if mean is None else _interval(probabilities, real, mean),
        "accuracy": float(((predicted == present) | ~known).all(1).mean()),
        "micro_f1": _f1(*map(sum, zip(*counts, strict=True))),
        "macro_f1": float(np.mean(f1s)) if f1s else 0.0,
        "loss": float(known_loss(logits.double(), truth.double())),
        "n": len(real),
        "baseline": float(np.mean(common)) if common else None,
        "labels": rows,
        "mistakes": _mistakes(probabilities, real, predicted, labels, ids),
    }


def _interval(probabilities: Values, real: Values, mean: float) -> list[float]:
    """95 % around the mean average precision, from its deviation over resampled images (bootstrap, Efron 1979).

    Not the percentiles of the resamples: an image drawn twice is ranked next to itself, which makes every average
    precision slightly too high.
    """
    count = len(real)
    # Seeded: the same interval every time.
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    areas = []
    for scores, column in zip(probabilities.T, real.T, strict=True):
        inside = np.isfinite(column)
        if (column[inside] == 1).any():
            areas.append(average_precision(scores[inside], column[inside], draws[:, inside]))
    each = np.stack(areas)
    drawn = np.isfinite(each).any(0)  # a resample may have no image with a rare label
    half = 1.96 * float(np.std(np.nanmean(each[:, drawn], axis=0))) if drawn.any() else 0.0
    return [max(0.0, mean - half), min(1.0, mean + half)]


def _mistakes(
    probabilities: Values, real: Values, predicted: Flags, labels: Sequence[str], ids: Sequence[str]
) -> list[dict[str, Any]]:
    """False positives and false negatives, the most confident first."""
    places = np.flatnonzero((predicted != (real == 1)) & np.isfinite(real))
    confidence = np.where(predicted, probabilities, 1 - probabilities)
    found = []
    for flat in places[np.argsort(-confidence.flat[places], kind="stable")][: kind.MISTAKES]:
        image, label = divmod(int(flat), len(labels))
        true = [name for name, value in zip(labels, real[image], strict=True) if value == 1]
        guess = labels[label] if predicted[image, label] else f"not {labels[label]}"
        found.append(mistake(ids[image], ", ".join(true) or "none of them", guess, float(confidence[image, label])))
    return found


def _best_threshold(scores: Values, real: Values) -> float:
    """The middle of the two scores between which F1 is highest; 0.5 if no image has the label."""
    if not real.any():
        return HALF
    order = np.argsort(-scores, kind="stable")
    falling = np.append(scores[order], 0.0)
    hits = np.cumsum(real[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + real.sum())
    f1[np.append(np.diff(scores[order]) == 0, False)] = -1.0  # a threshold cannot part equal scores
    best = int(f1.argmax())
    return float((falling[best] + falling[best + 1]) / 2)


def _columns(scores: Values, real: Values) -> list[tuple[Values, Values]]:
    """Each label's scores and truth over the images with known truth."""
    known = np.isfinite(real)
    return [(scores[known[:, place], place], real[known[:, place], place]) for place in range(real.shape[1])]


def _f1(hits: int, predicted: int, positive: int) -> float:
    return 2 * hits / (predicted + positive) if predicted + positive else 0.0
