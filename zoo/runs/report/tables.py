"""Tables of the report as plain values: classes, labels, confusions, training history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base.untrusted import is_finite, parse_json
from zoo.runs.report.sentences import part, tasks_of
from zoo.tasks import kinds
from zoo.tasks.schema import measure_name


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The result of one class."""

    name: str
    trained_on: int | None  # training images
    n: int  # test images
    accuracy: float | None  # recall; None without test images
    precision: float | None  # None if it was never predicted
    f1: float | None
    confused_with: str | None  # the most frequent wrong prediction for its images


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of one class predicted as another."""

    true: str
    predicted: str
    n: int
    share: float  # of the true class's images


@dataclass(frozen=True, slots=True)
class History:
    """A run's metrics file as series for plots. Steps count from 1 over the whole run."""

    steps: list[tuple[int, float]] = field(default_factory=list)  # (step, loss in nats)
    rates: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # group -> (step, rate)
    parts: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # name logged -> (step, value)
    epochs: list[dict[str, Any]] = field(default_factory=list)  # the epoch events
    spans: list[tuple[str, int, int]] = field(default_factory=list)  # (phase, first step, last step)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """The result of one label."""

    name: str
    trained_on: int | None  # training images with it
    n: int  # test images with it
    ap: float | None  # average precision; None without test images
    f1: float | None  # at the threshold, as precision and recall
    precision: float | None  # None if it was never predicted
    recall: float | None
    threshold: float | None  # lowest probability at which it is predicted


def epoch_score(event: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name and value of the main validation measure after an epoch."""
    for name, value in part(event, "values").items():
        return measure_name(name), float(value) if is_finite(value) else None
    accuracy: Any = event.get("val_accuracy")
    return "accuracy", float(accuracy) if is_finite(accuracy) else None


def read_history(path: Path) -> History:
    """Read `metrics.jsonl`; skips incomplete lines (a run in progress, a crash)."""
    history = History()
    if not path.is_file():
        return history
    with path.open(encoding="utf-8", errors="replace") as file:
        for event in _events(file):
            step, phase = event.get("step"), str(event.get("phase"))
            if not isinstance(step, int):
                continue
            if history.spans and history.spans[-1][0] == phase:
                history.spans[-1] = (phase, history.spans[-1][1], max(step, history.spans[-1][2]))
            else:
                history.spans.append((phase, step, step))
            if event.get("event") == "epoch":
                history.epochs.append(event)
            elif event.get("event") == "step":
                if is_finite(event.get("loss")):
                    history.steps.append((step, float(event["loss"])))
                for series, kind in ((history.rates, "lr"), (history.parts, "parts")):
                    for name, value in part(event, kind).items():
                        if is_finite(value):
                            series.setdefault(str(name), []).append((step, float(value)))
    return history


def _events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def class_names(record: Mapping[str, Any]) -> list[str]:
    """The classes of the only task, or the outputs of several tasks."""
    tasks = tasks_of(record)
    outputs = part(record, "dataset").get("classes") or ()
    return [str(name) for name in (tasks[0].classes if len(tasks) == 1 and tasks[0].classes else outputs)]


def _of_each(record: Mapping[str, Any], role: str) -> list[int]:
    """The number of images of each class, or of each output of several tasks, in a part."""
    tasks, held = tasks_of(record), part(record, "dataset", "counts", role)
    sizes = [int(size) for size in held.get("per_class") or ()]
    return kinds.of(tasks[0]).per_class(int(held.get("n") or 0), sizes) if len(tasks) == 1 else sizes


def confusion_matrix(record: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Images by true class (rows) and predicted class (columns), (K, K); None if the record has none."""
    matrix = np.asarray(part(record, "result").get("confusion") or (), dtype=np.int64)
    size = len(class_names(record))
    return matrix if len(matrix) and matrix.shape == (size, size) else None


def class_rows(record: Mapping[str, Any]) -> list[ClassRow]:
    """Every class, the weakest first, those without test images last."""
    names, matrix = class_names(record), confusion_matrix(record)
    roles = ("fit", "choose") if record.get("refit") else ("fit",)
    counts = [_of_each(record, role) for role in roles]
    fitted = [sum(sizes) for sizes in zip(*counts, strict=False)]
    rows = []
    for index, entry in enumerate(part(record, "result").get("classes") or ()):
        precision = f1 = confused = None
        if matrix is not None and index < len(matrix):
            hits, called = int(matrix[index, index]), int(matrix[:, index].sum())
            of_class = int(matrix[index].sum())
            precision = hits / called if called else None
            f1 = 2 * hits / (called + of_class) if called + of_class else None
            others = matrix[index].copy()
            others[index] = 0
            if others.any():
                confused = names[int(others.argmax())]
        accuracy = float(entry["accuracy"]) if is_finite(entry.get("accuracy")) else None
        trained_on = int(fitted[index]) if index < len(fitted) else None
        name, n = str(entry.get("name")), int(entry.get("n") or 0)
        rows.append(ClassRow(name, trained_on, n, accuracy, precision, f1, confused))
    return sorted(rows, key=lambda row: (row.accuracy is None, row.accuracy or 0.0, -row.n))


def label_rows(record: Mapping[str, Any]) -> list[LabelRow]:
    """Every label, the weakest first, those without test images last; empty for other kinds of task."""
    fitted = part(record, "dataset", "counts", "fit").get("per_class") or []
    rows = []
    for index, entry in enumerate(part(record, "result").get("labels") or ()):
        numbers = {key: float(entry[key]) if is_finite(entry.get(key)) else None
                   for key in ("ap", "f1", "precision", "recall", "threshold")}  # fmt: skip
        trained_on = int(fitted[index]) if index < len(fitted) else None
        rows.append(LabelRow(str(entry.get("name")), trained_on, int(entry.get("n") or 0), **numbers))
    return sorted(rows, key=lambda row: (row.ap is None, row.ap or 0.0, -row.n))


def confusions(record: Mapping[str, Any], limit: int) -> list[Confusion]:
    """The most frequent confusions, by number of images."""
    names, matrix = class_names(record), confusion_matrix(record)
    if matrix is None:
        return []
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = matrix.sum(axis=1)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:limit]
    pairs = (divmod(int(flat), len(names)) for flat in order)
    return [
        Confusion(names[true], names[predicted], int(wrong[true, predicted]),
                  float(wrong[true, predicted] / totals[true]))
        for true, predicted in pairs if wrong[true, predicted]
    ]  # fmt: skip


def aggregate(matrix: np.ndarray[Any, Any], cells: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The matrix in at most `cells` x `cells` blocks of neighbouring classes; each row sums to 1, or to 0 if empty."""
    edges = np.unique(np.linspace(0, len(matrix), min(cells, len(matrix)) + 1).astype(int))[:-1]
    blocks = np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1).astype(float)
    totals = blocks.sum(axis=1, keepdims=True)
    shares: np.ndarray[Any, np.dtype[np.float64]] = np.divide(
        blocks, totals, out=np.zeros_like(blocks), where=totals > 0
    )
    return shares
