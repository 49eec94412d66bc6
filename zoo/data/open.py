"""Open data sets, for training or to evaluate a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from zoo.data.dataset import Dataset, EvaluationSet
from zoo.data.join import join, options_by_set
from zoo.data.sources.dispatch import open_listing
from zoo.data.sources.table import SUFFIXES
from zoo.data.splits.roles import Assembly, Labelled, named
from zoo.data.targets import targets_of, widened
from zoo.data.types import DataOptions, Item, Listing, Progress
from zoo.errors import DataError
from zoo.tasks.schema import Task, alone, is_plain


def open_dataset(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Dataset:
    """Open a data set for training (`ref` as the sources take it), or join those that the options' tasks name.

    Each joined data set keeps its own splits, or is cut by itself; an image has NaN for the tasks of the others. Raises
    DataError if one cannot be read, lacks what a task names, has fewer than two classes, or has unreadable images.
    """
    if options.specs:
        return join({each: open_dataset(each, own, on_progress) for each, own in options_by_set(options)}, options)
    listing = _listed(ref, options, on_progress)
    splits = {split: _labelled(listing, split, listing.classes) for split in listing.splits}
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
    """Open `split` (None: test, else val, else what there is) to evaluate a model; nothing is cut or limited.

    `classes` are the model's, in order; labels are matched by name. Raises DataError as `open_dataset` does, and if
    there is no such split or it has a class that the model does not know.
    """
    listing = _with_tasks(_listed(ref, options, on_progress), options.tasks)
    if is_plain(listing.tasks) != is_plain(options.tasks):
        theirs, ours = ("several targets", "one class") if listing.tasks else ("one class", "several targets")
        raise DataError(
            f"the images of {ref} have {theirs} each, and the model predicts {ours}",
            why="" if listing.tasks else "there is not exactly one task of the model that has all of their classes",
            fix="name a table with the right columns: see --label-column, --label-separator and --problem",
        )
    available = [name for name in ("test", "val", "train", "all") if listing.splits.get(name)]
    if split is not None and split not in available:
        raise DataError(f"{ref} has no split {split}", fix=f"choose one of: {', '.join(available)}")
    chosen = split or available[0]
    rows = _labelled(listing, chosen, tuple(classes))
    return Assembly(ref, listing, options, on_progress).evaluation(rows, chosen, tuple(classes))


def _listed(ref: str, options: DataOptions, on_progress: Progress | None) -> Listing:
    """List the images; raises DataError if they have one class each and the options ask for more."""
    listing = open_listing(ref, options, on_progress)
    if (options.several or options.task_columns) and not listing.tasks:
        raise DataError(
            f"{ref} has one class per image, but several labels or columns were asked for",
            why="it is not a table",
            fix=f"write a table ({', '.join(SUFFIXES)}) with a row per image: see docs/multi-label.md",
        )
    return listing


def _with_tasks(listing: Listing, tasks: tuple[Task, ...]) -> Listing:
    """The listing with targets for all of a model's tasks, in their order."""
    if is_plain(tasks):
        return listing
    if not listing.tasks:
        names = set(listing.classes)
        fitting = [task for task in tasks if alone(task).plain and (len(tasks) == 1 or names <= {*task.classes})]
        if len(fitting) != 1:
            return listing
        (task,) = fitting
        _refuse_unknown(listing.name, listing.classes, task.classes)
        label_of = {name: (float(label),) for label, name in enumerate(task.classes)}
        listing = replace(
            listing,
            tasks=(task,),
            splits={
                split: [item._replace(label=label_of[str(item.label)]) for item in items]
                for split, items in listing.splits.items()
            },
        )

    def in_order(items: Sequence[Item]) -> list[Item]:
        rows = widened(targets_of([item.label for item in items]), listing.tasks, tasks)
        return [item._replace(label=row) for item, row in zip(items, rows, strict=True)]

    return replace(listing, splits={split: in_order(items) for split, items in listing.splits.items()}, tasks=tasks)


def _labelled(listing: Listing, split: str, classes: tuple[str, ...]) -> Labelled:
    """The images of a split with their class positions or targets."""
    items = listing.splits[split]
    if listing.tasks:  # their labels are targets already
        return list(zip(items, targets_of([item.label for item in items]), strict=True))
    _refuse_unknown(f"{split} of {listing.name}", {str(item.label) for item in items}, classes)
    position = {name: label for label, name in enumerate(classes)}
    return [(item, position[str(item.label)]) for item in items]


def _refuse_unknown(where: str, names: Collection[str], known: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DataError(
            f"{where} has {len(unknown)} class(es) that training does not know: {named(unknown)}",
            why=f"known classes: {named(known)}",
            fix="rename or remove these images, or add the class to the training images",
        )
