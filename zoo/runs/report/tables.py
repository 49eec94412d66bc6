"""What the report tabulates: per class, confusions, training history. Plain values, no markup."""

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
    """One class's share of the result."""

    name: str
    trained_on: int | None  # images it was fitted on
    n: int  # images measured
    accuracy: float | None  # share of its images that were recognised (recall); None without images
    precision: float | None  # share of the images called so that are so; None when none was
    f1: float | None
    confused_with: str | None  # the class that its images are most often taken for


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of one class taken for another."""

    true: str
    predicted: str
    n: int
    share: float  # of the true class's images


@dataclass(frozen=True, slots=True)
class History:
    """A run's metrics file, by what is drawn. Steps count from 1 over the whole run."""

    steps: list[tuple[int, float]] = field(default_factory=list)  # (step, loss in nats)
    rates: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # group -> (step, rate)
    parts: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # what the objective logs -> (step, value)
    epochs: list[dict[str, Any]] = field(default_factory=list)  # the epoch events
    spans: list[tuple[str, int, int]] = field(default_factory=list)  # (phase, first step, last step)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One label's share of the result."""

    name: str
    trained_on: int | None  # images with it that were fitted on
    n: int  # images with it that were measured
    ap: float | None  # average precision; None where none was
    f1: float | None  # at the threshold, as the next two
    precision: float | None  # None where it was given to none
    recall: float | None
    threshold: float | None  # probability from which it is given


def epoch_score(event: Mapping[str, Any]) -> tuple[str, float | None]:
    """What the validation images said after an epoch: the name of the number that counts, and the number."""
    for name, value in part(event, "values").items():
        return measure_name(name), float(value) if is_finite(value) else None
    accuracy: Any = event.get("val_accuracy")
    return "accuracy", float(accuracy) if is_finite(accuracy) else None


def read_history(path: Path) -> History:
    """Read `metrics.jsonl`; lines that are not whole (a run in progress, a crash) are passed over."""
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
    """The classes of a run's only task, or what the outputs of several are called."""
    tasks = tasks_of(record)
    outputs = part(record, "dataset").get("classes") or ()
    return [str(name) for name in (tasks[0].classes if len(tasks) == 1 and tasks[0].classes else outputs)]


def _of_each(record: Mapping[str, Any], role: str) -> list[int]:
    """Images of each class in a part; with several tasks those that are a case of each output."""
    tasks, held = tasks_of(record), part(record, "dataset", "counts", role)
    sizes = [int(size) for size in held.get("per_class") or ()]
    return kinds.of(tasks[0]).per_class(int(held.get("n") or 0), sizes) if len(tasks) == 1 else sizes


def confusion_matrix(record: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Images by true class (rows) and predicted class (columns), (K, K); None when the record has none."""
    rows = part(record, "result").get("confusion")
    if not rows:
        return None
    matrix = np.asarray(rows, dtype=np.int64)
    size = len(class_names(record))
    return matrix if matrix.shape == (size, size) else None


def class_rows(record: Mapping[str, Any]) -> list[ClassRow]:
    """Every class, the weakest first; classes that were not measured come last."""
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
        accuracy = entry.get("accuracy")
        rows.append(
            ClassRow(
                name=str(entry.get("name")),
                trained_on=int(fitted[index]) if index < len(fitted) else None,
                n=int(entry.get("n") or 0),
                accuracy=float(accuracy) if is_finite(accuracy) else None,
                precision=precision,
                f1=f1,
                confused_with=confused,
            )
        )
    return sorted(rows, key=lambda row: (row.accuracy is None, row.accuracy or 0.0, -row.n))


def label_rows(record: Mapping[str, Any]) -> list[LabelRow]:
    """Every label, the weakest first; labels that were not measured come last. Empty where images have one class."""
    fitted = part(record, "dataset", "counts", "fit").get("per_class") or []
    rows = []
    for index, entry in enumerate(part(record, "result").get("labels") or ()):
        numbers = {key: float(entry[key]) if is_finite(entry.get(key)) else None
                   for key in ("ap", "f1", "precision", "recall", "threshold")}  # fmt: skip
        trained_on = int(fitted[index]) if index < len(fitted) else None
        rows.append(LabelRow(str(entry.get("name")), trained_on, int(entry.get("n") or 0), **numbers))
    return sorted(rows, key=lambda row: (row.ap is None, row.ap or 0.0, -row.n))


def confusions(record: Mapping[str, Any], limit: int) -> list[Confusion]:
    """The pairs of classes that are mixed up most often, by number of images."""
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
    """The matrix in at most `cells` x `cells` blocks of neighbouring classes, each row summing to 1 (or 0)."""
    edges = np.unique(np.linspace(0, len(matrix), min(cells, len(matrix)) + 1).astype(int))[:-1]
    blocks = np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1).astype(float)
    totals = blocks.sum(axis=1, keepdims=True)
    shares: np.ndarray[Any, np.dtype[np.float64]] = np.divide(
        blocks, totals, out=np.zeros_like(blocks), where=totals > 0
    )
    return shares
