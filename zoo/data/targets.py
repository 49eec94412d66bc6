"""What images answer, all together: which answers each of them gives, and how many give each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.tasks import kinds
from zoo.tasks.kind import Flags, Values
from zoo.tasks.schema import NAN, Span, Target, Task, spans


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
    return np.concatenate(
        [kinds.of(span.task).strata(span.task, values) for span, values in each_task(tasks, targets)], axis=1
    )


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


def fitted(tasks: Sequence[Task], targets: Sequence[Target]) -> tuple[Task, ...]:
    """The tasks with what their losses need to know of the training images, such as the mean of a quantity."""
    return tuple(kinds.of(span.task).fitted(span.task, values) for span, values in each_task(tasks, targets))


def draw_weights(tasks: Sequence[Task], targets: Sequence[Target], temperature: float) -> list[float]:
    """How often each image is drawn: its tasks come in proportion to their size to the power of the temperature.

    An image that answers several tasks gets the mean of what they ask for; one that answers none gets the least of all.
    So the proportion holds exactly where no image answers two tasks; where images do, a draw of one task is also one of
    the other, and at 0 the tasks come only more alike than they would.
    """
    answers = np.stack([np.isfinite(values).any(1) for _, values in each_task(tasks, targets)], axis=1)
    sizes = np.maximum(answers.sum(0), 1).astype(np.float64)
    wanted = sizes ** (temperature - 1.0)
    weights = np.where(answers.any(1), (answers * wanted).sum(1) / np.maximum(answers.sum(1), 1), wanted.min())
    drawn: list[float] = weights.tolist()
    return drawn


def counts(tasks: Sequence[Task], targets: Sequence[Target]) -> list[int]:
    """For each output, the images that are a case of it: of its class, with its label, above its step, with a value."""
    return [n for span, values in each_task(tasks, targets) for n in kinds.of(span.task).counts(span.task, values)]


def each_task(tasks: Sequence[Task], targets: Sequence[Target]) -> list[tuple[Span, Values]]:
    """The tasks in order, each with the images' answers to it, (N, columns)."""
    table = np.array(targets, dtype=np.float64).reshape(len(targets), sum(task.columns for task in tasks))
    return [(span, table[:, span.columns]) for span in spans(tasks)]
