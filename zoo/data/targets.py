"""Targets of images: class positions or numbers, per-task views, counts and draw weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from zoo.tasks import kinds
from zoo.tasks.kind import Flags, Values
from zoo.tasks.schema import NAN, Span, Target, Task, spans


def classes_of(labels: Sequence[int | Target]) -> list[int]:
    """The labels of images of one class each. Raises TypeError if one is a target."""
    positions = [label for label in labels if isinstance(label, int)]
    if len(positions) < len(labels):
        raise TypeError(f"{len(labels) - len(positions)} of {len(labels)} labels are not class positions")
    return positions


def targets_of(labels: Sequence[int | str | Target]) -> list[Target]:
    """The labels of images with targets. Raises TypeError if one is a class."""
    targets = [label for label in labels if isinstance(label, tuple)]
    if len(targets) < len(labels):
        raise TypeError(f"{len(labels) - len(targets)} of {len(labels)} labels are not targets")
    return targets


def indicators(tasks: Sequence[Task], targets: Sequence[Target]) -> Flags:
    """Each image's strata, (N, strata): classes, labels, levels, quarters of a regression target."""
    strata = [kinds.of(span.task).strata(span.task, values) for span, values in each_task(tasks, targets)]
    return np.concatenate(strata, axis=1)


def widened(targets: Sequence[Target], own: Sequence[Task], tasks: Sequence[Task]) -> list[Target]:
    """Targets of the tasks `own` as targets of `tasks`, matched by name; NaN for a task that is not among `own`."""
    columns = {span.task.name: span.columns for span in spans(own)}
    unknown = {task.name: (NAN,) * task.columns for task in tasks}
    return [
        tuple(chain.from_iterable(target[columns[name]] if name in columns else nan for name, nan in unknown.items()))
        for target in targets
    ]


def task_counts(tasks: Sequence[Task], targets: Sequence[Target]) -> dict[str, int]:
    """For each task by name, the images that have a target for it."""
    return {span.task.name: int((~np.isnan(values)).any(1).sum()) for span, values in each_task(tasks, targets)}


def fitted(tasks: Sequence[Task], targets: Sequence[Target]) -> tuple[Task, ...]:
    """The tasks with the training statistics that their losses need, such as the mean of a regression target."""
    return tuple(kinds.of(span.task).fitted(span.task, values) for span, values in each_task(tasks, targets))


def draw_weights(tasks: Sequence[Task], targets: Sequence[Target], temperature: float) -> list[float]:
    """Each image's draw weight: tasks are drawn in proportion to their number of images ** temperature.

    An image of several tasks gets the mean of their weights, one of none the least. So the proportion is exact only if
    no image has several tasks: drawing it for one task draws it for the others too.
    """
    known = np.stack([np.isfinite(values).any(1) for _, values in each_task(tasks, targets)], axis=1)
    sizes = np.maximum(known.sum(0), 1).astype(np.float64)
    per_task = sizes ** (temperature - 1.0)
    # The mean weight over the tasks that an image has a target for.
    weights = np.where(known.any(1), (known * per_task).sum(1) / np.maximum(known.sum(1), 1), per_task.min())
    drawn: list[float] = weights.tolist()
    return drawn


def counts(tasks: Sequence[Task], targets: Sequence[Target]) -> list[int]:
    """For each output, its positive images: of the class, with the label, above the level, with a value."""
    return [n for span, values in each_task(tasks, targets) for n in kinds.of(span.task).counts(span.task, values)]


def each_task(tasks: Sequence[Task], targets: Sequence[Target]) -> list[tuple[Span, Values]]:
    """The tasks in order, each with the images' targets for it, (N, columns)."""
    table = np.array(targets, dtype=np.float64).reshape(len(targets), sum(task.columns for task in tasks))
    return [(span, table[:, span.columns]) for span in spans(tasks)]
