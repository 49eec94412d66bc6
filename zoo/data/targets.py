"""What images answer, all together: which answers each of them gives, and how many give each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zoo.data.types import NAN, Target
from zoo.tasks.schema import Task, spans

BINS = 4  # quantiles of a quantity that count as answers of their own

Flags = npt.NDArray[np.bool_]


def classes_of(labels: Sequence[int | Target]) -> list[int]:
    """The labels of images of one class each.

    Raises:
        TypeError: One is an answer to tasks.
    """
    found = [label for label in labels if isinstance(label, int)]
    if len(found) < len(labels):
        raise TypeError(f"{len(labels) - len(found)} of {len(labels)} labels are no class's position")
    return found


def targets_of(labels: Sequence[int | str | Target]) -> list[Target]:
    """The labels of images that answer tasks.

    Raises:
        TypeError: One is a class.
    """
    found = [label for label in labels if isinstance(label, tuple)]
    if len(found) < len(labels):
        raise TypeError(f"{len(labels) - len(found)} of {len(labels)} labels are no answers to tasks")
    return found


def indicators(tasks: Sequence[Task], targets: Sequence[Target]) -> Flags:
    """Which answers each image gives, (N, answers): classes, labels, steps, quarters of a quantity."""
    table = np.array(targets, dtype=np.float64)
    columns: list[Flags] = []
    for span in spans(tasks):
        values = table[:, span.columns]
        if span.task.kind == "multi-label":
            columns.append(values == 1.0)
        elif span.task.kind == "regression":
            known = np.isfinite(values[:, 0])
            edges = np.quantile(values[known, 0], np.linspace(0, 1, BINS + 1)[1:-1]) if known.any() else []
            place = np.searchsorted(edges, values[:, 0], side="right")
            columns.append((place[:, None] == np.arange(BINS)) & known[:, None])
        else:
            columns.append(values == np.arange(len(span.task.classes)))
    return np.concatenate(columns, axis=1)


def widened(targets: Sequence[Target], own: Sequence[Task], tasks: Sequence[Task]) -> list[Target]:
    """Targets of some tasks with room for all of them, in their order; what is not answered is not known."""
    places = {span.task.name: span.columns for span in spans(own)}
    rows = []
    for target in targets:
        row: list[float] = []
        for task in tasks:
            row += target[places[task.name]] if task.name in places else [NAN] * task.columns
        rows.append(tuple(row))
    return rows


def answers(tasks: Sequence[Task], targets: Sequence[Target]) -> dict[str, int]:
    """For each task by name, the images that answer it."""
    return {span.task.name: sum(any(number == number for number in target[span.columns]) for target in targets)
            for span in spans(tasks)}  # fmt: skip


def standardised(tasks: Sequence[Task], targets: Sequence[Target]) -> tuple[Task, ...]:
    """The tasks with mean and deviation of the values that images have, where these are quantities."""
    table = np.array(targets, dtype=np.float64)
    found = []
    for span in spans(tasks):
        if span.task.kind == "regression":
            values = table[:, span.columns.start]
            values = values[np.isfinite(values)]
            spread = float(values.std()) if len(values) else 0.0
            found.append(replace(span.task, mean=float(values.mean()) if len(values) else 0.0, std=spread or 1.0))
        else:
            found.append(span.task)
    return tuple(found)


def draw_weights(tasks: Sequence[Task], targets: Sequence[Target], temperature: float) -> list[float]:
    """How often each image is drawn: its tasks come in proportion to their size to the power of the temperature.

    An image that answers several tasks gets the mean of what they ask for; one that answers none gets the least of all.
    So the proportion holds exactly where no image answers two tasks; where images do, a draw of one task is also one of
    the other, and at 0 the tasks come only more alike than they would.
    """
    table = np.array(targets, dtype=np.float64)
    answers = np.stack([np.isfinite(table[:, span.columns]).any(1) for span in spans(tasks)], axis=1)
    sizes = np.maximum(answers.sum(0), 1).astype(np.float64)
    wanted = sizes ** (temperature - 1.0)
    weights = np.where(answers.any(1), (answers * wanted).sum(1) / np.maximum(answers.sum(1), 1), wanted.min())
    drawn: list[float] = weights.tolist()
    return drawn


def counts(tasks: Sequence[Task], targets: Sequence[Target]) -> list[int]:
    """For each output, the images that are a case of it: of its class, with its label, above its step, with a value."""
    found: list[int] = []
    place = 0
    for task in tasks:
        column = [target[place : place + task.columns] for target in targets]
        place += task.columns
        if task.kind == "multi-label":
            found += [sum(row[label] == 1.0 for row in column) for label in range(task.columns)]
            continue
        values = Counter(row[0] for row in column if row[0] == row[0])
        if task.kind == "regression":
            found.append(sum(values.values()))
        elif task.kind == "ordinal":
            found += [sum(count for value, count in values.items() if value > step) for step in range(task.outputs)]
        else:
            found += [values[float(label)] for label in range(task.outputs)]
    return found
