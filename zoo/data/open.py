"""From a reference to a data set: to train on, or to score a model on that has its classes already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zoo.data.dataset import Dataset, EvaluationSet
from zoo.data.sources.dispatch import open_listing
from zoo.data.splits.roles import Assembly, Labelled, named
from zoo.data.targets import targets_of, widened
from zoo.data.types import DataOptions, Listing, Progress
from zoo.errors import DataError
from zoo.tasks.schema import Task, alone, is_plain


def open_one(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Dataset:
    """Open one data set for training.

    Args:
        ref: A registry name, `hf:ORG/NAME[@revision]`, a folder, a table, or an archive.
        options: What to take and how to cut.
        on_progress: Called with (stage, done, total) while images are fetched and read.

    Raises:
        DataError: It cannot be reached or read, has fewer than two classes, or has unreadable images.
    """
    listing = open_listing(ref, options, on_progress)
    splits = _with_labels(listing, listing.classes)
    given = [name for name in ("train", "val", "test", "all") if splits.get(name)]
    if len(given) > 1 and "train" not in given:
        raise DataError(f"{ref} has {' and '.join(given)} but no training split", fix="add a `train` split")
    if len(listing.classes) < 2 and not listing.tasks:
        raise DataError(
            f"{ref} has one class only: {', '.join(listing.classes)}",
            why="a classifier needs at least two to tell apart",
            fix="add images of another class",
        )
    return Assembly(ref, listing, options, on_progress).build(splits, given)


def open_evaluation(
    ref: str,
    classes: Sequence[str],
    options: DataOptions,
    on_progress: Progress | None = None,
    *,
    split: str | None = None,
) -> EvaluationSet:
    """Open a data set to score a model that has its classes already. Nothing is cut or limited.

    Args:
        ref: As for `open_one`.
        classes: The model's classes in order; labels are matched by name.
        options: Columns, configuration and what to do about unreadable images.
        on_progress: Called with (stage, done, total).
        split: "train", "val" or "test"; None takes test, else val, else whatever there is.

    Raises:
        DataError: As for `open_one`, or there is no such split, or it has a class that the model does not know.
    """
    listing = _answering(open_listing(ref, options, on_progress), options.tasks)
    if is_plain(listing.tasks) != is_plain(options.tasks):
        mine, theirs = ("one class", "several answers") if listing.tasks else ("several answers", "one class")
        raise DataError(
            f"the images of {ref} have {theirs} each, and the model gives {mine}",
            why="" if listing.tasks else "there is not just one of its tasks that has all of their classes",
            fix="name a table with the right columns: see --label-column, --label-separator and --problem",
        )
    available = [name for name in ("test", "val", "train", "all") if listing.splits.get(name)]
    if split is not None and split not in available:
        raise DataError(f"{ref} has no split {split}", fix=f"choose one of: {', '.join(available)}")
    chosen = split or available[0]
    labelled = _with_labels(listing, tuple(classes), only=chosen)[chosen]
    assembly = Assembly(ref, listing, options, on_progress)
    return assembly.evaluation(labelled, chosen, tuple(classes))


def _answering(listing: Listing, tasks: tuple[Task, ...]) -> Listing:
    """The listing with room for the answers to all of a model's tasks, in their order."""
    if is_plain(tasks):
        return listing
    if not listing.tasks:
        named = set(listing.classes)
        fitting = [task for task in tasks if alone(task).plain and (len(tasks) == 1 or named <= {*task.classes})]
        listing = _as_task(listing, fitting[0]) if len(fitting) == 1 else listing
    own = listing.tasks
    if not own or own == tasks:
        return listing
    items = {}
    for split, found in listing.splits.items():
        rows = widened(targets_of([item.label for item in found]), own, tasks)
        items[split] = [item._replace(label=row) for item, row in zip(found, rows, strict=True)]
    return replace(listing, splits=items, tasks=tasks)


def _as_task(listing: Listing, task: Task) -> Listing:
    """Images of one class each, as answers to a task of classes."""
    unknown = sorted(set(listing.classes) - set(task.classes))
    if unknown:
        raise DataError(
            f"{listing.name} has {len(unknown)} class(es) that training does not know: {named(unknown)}",
            why=f"known classes: {named(task.classes)}",
            fix="rename or remove these images, or add the class to the training images",
        )
    place = {name: (float(label),) for label, name in enumerate(task.classes)}
    items = {split: [item._replace(label=place[str(item.label)]) for item in found]
             for split, found in listing.splits.items()}  # fmt: skip
    return replace(listing, splits=items, tasks=(task,))


def _with_labels(listing: Listing, classes: tuple[str, ...], only: str | None = None) -> dict[str, Labelled]:
    position = {name: label for label, name in enumerate(classes)}
    result: dict[str, Labelled] = {}
    for split, items in listing.splits.items():
        if only is not None and split != only:
            continue
        if listing.tasks:  # their targets are numbers already
            result[split] = list(zip(items, targets_of([item.label for item in items]), strict=True))
            continue
        unknown = sorted({str(item.label) for item in items} - position.keys())
        if unknown:
            raise DataError(
                f"{split} of {listing.name} has {len(unknown)} class(es) that training does not know: {named(unknown)}",
                why=f"known classes: {named(classes)}",
                fix="rename or remove these images, or add the class to the training images",
            )
        result[split] = [(item, position[str(item.label)]) for item in items]
    return result
