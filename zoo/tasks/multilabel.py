"""Multi-label classification: binary cross-entropy and the asymmetric loss, average precision, thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from zoo.base.text import percent
from zoo.tasks.kind import MISTAKES, TaskPrediction, Column, Flags, Kind, LossOptions, Unfit, Values, ranked, refuse_unknown
from zoo.tasks.schema import FACTS, MANY, NAN, Target, Task, in_order

RESAMPLES = 200  # of the images, for the interval
FEW = 5  # images with a label below which a threshold of its own would be chance

Floats = npt.NDArray[np.float64]
Each = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

HALF = 0.5  # the threshold of a label for which none was chosen
# The paper's for most of its experiments: easy absences are weighed down, and the easiest left out.
GAMMA_ABSENT, MARGIN = 4, 0.05


class MultiLabel(Kind):
    """Several labels of an image, which do not exclude each other."""

    facts = FACTS[MANY]
    purpose = "to give each image those of {classes} that it has"
    usage = 'print(task["name"], [name for name, p, t in zip(names, mine.sigmoid(), task["thresholds"]) if p >= t])'
    shown = (("micro F1", "micro_f1", ".4f"), ("macro F1", "macro_f1", ".4f"), ("every label right", "accuracy", "%"),
             ("loss", "loss", ".4f"))  # fmt: skip

    def claims(self, column: Column) -> str | None:
        """Lists in cells, or the separator."""
        return "" if column.several else None

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """The labels are those of the training images, unless a model has them already."""
        fitted = {
            label for labels, fits in zip(column.labels, column.trained, strict=True) if fits for label in labels or ()
        }
        classes = column.known.classes if column.known else in_order(fitted)
        if not classes:
            raise Unfit("no training image has a label")
        place = {name: number for number, name in enumerate(classes)}
        refuse_unknown({label for labels in column.labels for label in labels or ()}, classes, self.facts.noun)
        targets: list[Target] = []
        for labels in column.labels:
            row = [0.0 if labels is not None else NAN] * len(classes)
            for label in labels or ():
                row[place[label]] = 1.0
            targets.append(tuple(row))
        return Task(column.name, self.facts.name, classes), targets

    def strata(self, task: Task, targets: Values) -> Flags:
        """Its labels."""
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
        """Mean average precision; 0 where no image has any label."""
        area = mean_ap(logits, targets)
        return area if area == area else 0.0

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """See `measure_labels`."""
        return measure_labels(logits, targets, task.classes, thresholds(task), ids)

    def calibrate(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> Task:
        """With a threshold for each label."""
        return replace(task, thresholds=choose_thresholds(logits, targets))

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The labels above their thresholds, and the most probable ones."""
        found = []
        for shares in logits.sigmoid():
            pairs = zip(task.classes, shares.tolist(), thresholds(task), strict=True)
            over = [(name, share) for name, share, least in pairs if share >= least]
            best = tuple(sorted(over, key=lambda pair: -pair[1]))
            found.append(TaskPrediction(top=ranked(shares, task, top), labels=best))
        return found

    def table(self, result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Labels with what is measured of each."""
        rows = [[row["name"], str(row["n"]), *(percent(row[key]) for key in ("ap", "f1", "precision", "recall")),
                 f"{row['threshold']:.3f}"] for row in result["labels"]]  # fmt: skip
        return ["label", "images", "AP", "F1", "precision", "recall", "threshold"], rows


def thresholds(task: Task) -> Sequence[float]:
    """The probability from which each label is given."""
    return task.thresholds or [HALF] * len(task.classes)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The binary cross-entropy of each label, (N, labels), nats."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def asymmetric(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The asymmetric loss of each label, (N, labels).

    Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification".
    With p the probability and p_m = max(p - m, 0): -log p where a label is there, which the paper weighs by
    (1 - p)^g+ with g+ = 0; -p_m^g- log(1 - p_m) where it is not.
    """
    shifted = (logits.sigmoid() - MARGIN).clamp(min=0)
    absent = -(shifted**GAMMA_ABSENT) * torch.log1p(-shifted)
    return -targets * functional.logsigmoid(logits) + (1 - targets) * absent


LOSSES: dict[str, Each] = {"bce": cross_entropy, "asymmetric": asymmetric}


def known_loss(
    logits: torch.Tensor, truth: torch.Tensor, each: Each = cross_entropy, smoothing: float = 0.0
) -> torch.Tensor:
    """The mean loss over the labels that are known, nats; 0 where none is.

    Args:
        logits: (N, labels).
        truth: (N, labels): 1, 0, or NaN where it is not known.
        each: The loss of each label, from logits and targets.
        smoothing: Share of each target that goes to the other answer: 1 becomes 1 - s/2, 0 becomes s/2.
    """
    known = truth.isfinite()
    targets = truth.nan_to_num() * (1 - smoothing) + smoothing / 2
    return (each(logits, targets) * known).sum() / known.sum().clamp(min=1)


def average_precision(scores: Floats, truth: Floats, weights: Floats | None = None) -> Floats:
    """Area under precision over recall, as steps: the sum over scores of precision times what recall gains there.

    Args:
        scores: (N,), higher where the label is more likely.
        truth: (N,), 1 or 0.
        weights: (R, N), how often each image counts in each of R resamples; None: once.

    Returns:
        (R,) or (1,); NaN where no image has the label.
    """
    order = np.argsort(-scores, kind="stable")
    times = np.ones((1, len(scores))) if weights is None else weights
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of images with equal scores
    hits = np.cumsum(times[:, order] * truth[order], axis=1)[:, last]
    called = np.cumsum(times[:, order], axis=1)[:, last]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, hits / called, 0.0)
        area: Floats = (np.diff(hits, axis=1, prepend=0.0) * precision).sum(1) / hits[:, -1]
    return area


def mean_ap(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean of the labels' average precisions, over those that some image has; NaN where there is none."""
    found = [average_precision(scores, real)[0] for scores, real in _columns(logits, truth) if real.any()]
    return float(np.mean(found)) if found else float("nan")


def choose_thresholds(logits: torch.Tensor, truth: torch.Tensor) -> tuple[float, ...]:
    """For each label the probability from which it is given: where F1 is highest on these images.

    A label that fewer than `FEW` of them have gets the one that is best for all labels together (micro-F1).
    """
    columns = [(_sigmoid(scores), real) for scores, real in _columns(logits, truth)]
    shared = _best_threshold(np.concatenate([scores for scores, _ in columns]),
                             np.concatenate([real for _, real in columns]))  # fmt: skip
    return tuple(_best_threshold(scores, real) if real.sum() >= FEW else shared for scores, real in columns)


def measure_labels(
    logits: torch.Tensor, truth: torch.Tensor, labels: Sequence[str], thresholds: Sequence[float], ids: Sequence[str]
) -> dict[str, Any]:
    """Everything that a result says about labels.

    Args:
        logits: (N, labels).
        truth: (N, labels): 1, 0, or NaN where it is not known.
        labels: Their names.
        thresholds: The probability from which each is given.
        ids: Name of each image.

    Returns:
        Plain values: map with its 95 % interval (bootstrap over images), micro_f1, macro_f1 (over labels
        that occur), accuracy (share of images of which every label is right), loss (nats per label), n, baseline (the
        map of a guess: how common labels are), labels (n, ap, f1, precision, recall, threshold), mistakes.
    """
    probabilities = _sigmoid(logits.double().numpy())
    real = truth.double().numpy()
    known = np.isfinite(real)
    given = probabilities >= np.asarray(thresholds)
    rows: list[dict[str, Any]] = []
    areas: list[float] = []
    hits_all = given_all = real_all = 0
    for place, name in enumerate(labels):
        inside = known[:, place]
        mine, are = given[inside, place], real[inside, place] == 1
        hits, called, there = int((mine & are).sum()), int(mine.sum()), int(are.sum())
        area = float(average_precision(probabilities[inside, place], are.astype(float))[0]) if there else None
        if area is not None:
            areas.append(area)
        hits_all, given_all, real_all = hits_all + hits, given_all + called, real_all + there
        rows.append({
            "name": name, "n": there, "ap": area, "f1": _f1(hits, called, there) if there else None,
            "precision": hits / called if called else None, "recall": hits / there if there else None,
            "threshold": float(thresholds[place]),
        })  # fmt: skip
    right = (given == (real == 1)) | ~known
    f1s: list[float] = [row["f1"] for row in rows if row["f1"] is not None]
    common = [float((column == 1).sum() / inside.sum()) for column, inside in zip(real.T, known.T, strict=True)
              if (column == 1).any()]  # fmt: skip
    return {
        "map": float(np.mean(areas)) if areas else None,
        "interval": _interval(probabilities, real, float(np.mean(areas))) if areas else None,
        "accuracy": float(right.all(1).mean()),
        "micro_f1": _f1(hits_all, given_all, real_all) or 0.0,
        "macro_f1": float(np.mean(f1s)) if f1s else 0.0,
        "loss": float(known_loss(logits.double(), truth.double())),
        "n": len(real),
        "baseline": float(np.mean(common)) if common else None,
        "labels": rows,
        "mistakes": _mistakes(probabilities, real, given, labels, ids),
    }


def _interval(probabilities: Floats, real: Floats, found: float) -> list[float]:
    """95 % around the mean average precision, from its deviation over resampled images (bootstrap, Efron 1979).

    Not the percentiles of what resampling gives: an image that is drawn twice is ranked beside itself, which makes
    every average precision a little too high.
    """
    count = len(real)
    generator = np.random.default_rng(0)  # the same answer twice
    draws = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    areas = []
    for scores, column in zip(probabilities.T, real.T, strict=True):
        inside = np.isfinite(column)
        if (column[inside] == 1).any():
            areas.append(average_precision(scores[inside], column[inside], draws[:, inside]))
    each = np.stack(areas)
    drawn = np.isfinite(each).any(0)  # where labels are rare, a resample may have none of them
    half = 1.96 * float(np.std(np.nanmean(each[:, drawn], axis=0))) if drawn.any() else 0.0
    return [max(0.0, found - half), min(1.0, found + half)]


def _mistakes(
    probabilities: Floats, real: Floats, given: npt.NDArray[np.bool_], labels: Sequence[str], ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Labels that were given or withheld wrongly, the surest first."""
    wrong = (given != (real == 1)) & np.isfinite(real)
    sure = np.where(given, probabilities, 1 - probabilities)
    places = np.flatnonzero(wrong)
    found = []
    for flat in places[np.argsort(-sure.flat[places], kind="stable")][:MISTAKES]:
        image, label = divmod(int(flat), len(labels))
        true = [name for name, value in zip(labels, real[image], strict=True) if value == 1]
        found.append({
            "id": ids[image], "label": ", ".join(true) or "none of them",
            "predicted": labels[label] if given[image, label] else f"not {labels[label]}",
            "probability": float(sure[image, label]),
        })  # fmt: skip
    return found


def _best_threshold(scores: Floats, real: Floats) -> float:
    """Halfway between the two scores between which F1 is highest; 0.5 where nothing is to be found."""
    if not real.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(real[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + real.sum())
    f1[np.append(np.diff(ranked) == 0, False)] = -1.0  # equal scores go one way together
    best = int(f1.argmax())
    return float((ranked[best] + (ranked[best + 1] if best + 1 < len(ranked) else 0.0)) / 2)


def _columns(logits: torch.Tensor, truth: torch.Tensor) -> list[tuple[Floats, Floats]]:
    """Each label's scores and truth, over the images where that is known."""
    scores, real = logits.double().numpy(), truth.double().numpy()
    inside = np.isfinite(real)
    return [(scores[inside[:, place], place], real[inside[:, place], place]) for place in range(real.shape[1])]


def _f1(hits: int, called: int, there: int) -> float | None:
    return 2 * hits / (called + there) if called + there else None


def _sigmoid(values: Floats) -> Floats:
    found: Floats = torch.from_numpy(values).sigmoid().numpy()
    return found
