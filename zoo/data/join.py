"""The data of several tasks: columns of one table, or several data sets that answer different questions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.dataset import Dataset, Origin
from zoo.data.open import open_one
from zoo.data.part import Decoded, Part
from zoo.data.sources.cells import parts_of
from zoo.data.sources.table import columns_of, is_table
from zoo.data.store.segment import Pixels
from zoo.data.store.store import Store
from zoo.data.targets import fitted, widened
from zoo.data.types import RECORDED, DataOptions, Progress, Reader, TaskColumns
from zoo.errors import DataError
from zoo.tasks.schema import MANY, UNASKED, Target, Task, TaskSpec, is_plain, output_names


def question(spec: TaskSpec) -> TaskColumns:
    """What a table is asked for a task."""
    column = spec.column or "label"
    several = "," in column
    columns = tuple(parts_of(column, ",")) if several else (column,)
    return TaskColumns(spec.name, columns, MANY if several else spec.kind, spec.steps)


def asked_of(ref: str, tasks: Sequence[Task], specs: Sequence[TaskSpec], options: DataOptions) -> DataOptions:
    """The options that open a data set to score a model that answers tasks.

    A table is asked about each task whose column it has: the one that training read, else one of the task's name. What
    it lacks is not known. Anything else has one class of each image, and answers the one task that has these classes.

    Raises:
        DataError: A table has none of the columns; or there is a separator of labels, and no task has any.
    """
    if is_plain(tasks):
        return options
    options = replace(options, tasks=tuple(tasks))
    if not specs and len(tasks) == 1 and tasks[0].name == UNASKED and tasks[0].facts.several:
        return replace(options, problem=MANY)
    _refuse_idle_separator(tasks, options)
    if not is_table(Path(ref)):
        return options
    named = {spec.name: question(spec) for spec in specs}
    asked = [named.get(task.name, TaskColumns(task.name, (task.name,))) for task in tasks]
    there = set(columns_of(Path(ref), [column for each in asked for column in each.columns]))
    found = tuple(each for each in asked if set(each.columns) <= there)
    if not found:
        wanted = ", ".join(column for each in asked for column in each.columns)
        raise DataError(
            f"{ref} answers none of the model's questions: it has none of the columns {wanted}",
            why=f"its columns are: {', '.join(sorted(there)[:20])}",
            fix="call the columns what they were called in training, or what the tasks are called",
        )
    return replace(options, task_columns=found)


def open_dataset(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Dataset:
    """Open a data set for training, or those that the options' tasks name.

    Args:
        ref: A registry name, `hf:ORG/NAME[@revision]`, a folder, a table, or an archive.
        options: What to take and how to cut.
        on_progress: Called with (stage, done, total) while images are fetched and read.

    Raises:
        DataError: It cannot be reached or read, has fewer than two classes, or has unreadable images.
    """
    return open_tasks(options.specs, options, on_progress) if options.specs else open_one(ref, options, on_progress)


def open_tasks(specs: Sequence[TaskSpec], options: DataOptions, on_progress: Progress | None = None) -> Dataset:
    """Open what the tasks name, for training: one data set whose images answer all of them, or some.

    Each data set keeps its own splits, or is cut by itself. An image of one that does not answer a task has no answer
    to it, which counts neither in the loss nor in a measure.

    Args:
        specs: The tasks, in the order of the head's outputs.
        options: What to take and how to cut.
        on_progress: Called with (stage, done, total).

    Raises:
        DataError: A data set cannot be opened, or does not have what a task names.
    """
    groups: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.dataset, []).append(spec)
    opened = []
    for ref, asked in groups.items():
        table = is_table(Path(ref))
        if not table:
            _require_plain(ref, asked)
        own = replace(options, specs=(), task_columns=tuple(map(question, asked)) if table else ())
        if not table:
            own = replace(own, label_separator=None)
        found = open_one(ref, own, on_progress)
        opened.append(_as_task(found, asked[0].name) if is_plain(found.tasks) else found)
    tasks = {task.name: task for dataset in opened for task in dataset.tasks}
    ordered = tuple(tasks[spec.name] for spec in specs)
    _refuse_idle_separator(ordered, options)
    joined = _ordered(opened[0], ordered) if len(opened) == 1 else _joined(opened, list(groups), ordered)
    return _with_statistics(joined)


def _refuse_idle_separator(tasks: Sequence[Task], options: DataOptions) -> None:
    if options.label_separator is not None and not any(task.facts.several for task in tasks):
        raise DataError(
            f"no task has several labels in a cell, so {options.label_separator!r} separates nothing",
            why=f"the tasks are: {', '.join(f'{task.name} ({task.kind})' for task in tasks)}",
            fix="leave --label-separator out; in training a task of labels is NAME=TABLE:COLUMN:multi-label",
        )


def _require_plain(ref: str, specs: Sequence[TaskSpec]) -> None:
    first = specs[0]
    wrong = "columns" if first.column else f"the kind {first.kind}" if not first.plain else ""
    if not wrong and len(specs) > 1:
        wrong = f"{len(specs)} tasks"
    if wrong:
        raise DataError(
            f"{ref} has one class of each image, and {wrong} cannot be had of it",
            fix=f"write --task {first.name}={ref}, or name a table with columns",
        )


def _as_task(dataset: Dataset, name: str) -> Dataset:
    """Images of one class each, as images that answer one task."""
    tasks = (replace(dataset.tasks[0], name=name, plain=False),)
    parts: dict[str, Any] = {role: part.answering(tasks, part.targets) for role, part in dataset.parts.items()}
    return replace(dataset, tasks=tasks, **parts)


def _ordered(dataset: Dataset, tasks: tuple[Task, ...]) -> Dataset:
    parts: dict[str, Any] = {role: part.answering(tasks, _widened(part, tasks)) for role, part in dataset.parts.items()}
    return replace(dataset, tasks=tasks, classes=output_names(tasks), **parts)


def _joined(datasets: Sequence[Dataset], refs: Sequence[str], tasks: tuple[Task, ...]) -> Dataset:
    names: list[str] = []
    for dataset in datasets:
        names.append(dataset.name if dataset.name not in names else f"{dataset.name}-{len(names) + 1}")
    reader, store = _source(datasets)
    parts: dict[str, Any] = {
        role: _one_part([dataset.parts[role] for dataset in datasets], names, tasks, reader, store) for role in RECORDED
    }
    sets = [
        Origin(
            ref,
            name,
            tuple(task.name for task in dataset.tasks),
            dataset.fingerprint,
            dataset.license,
            dataset.selected_on,
            dataset.reported_on,
        )
        for ref, name, dataset in zip(refs, names, datasets, strict=True)
    ]
    notes = [f"{name}: {note}" for name, dataset in zip(names, datasets, strict=True) for note in dataset.notes]
    known = any(dataset.license for dataset in datasets)
    return Dataset(
        name="+".join(names),
        classes=output_names(tasks),
        **parts,
        selected_on=_said([dataset.selected_on for dataset in datasets], names),
        reported_on=_said([dataset.reported_on for dataset in datasets], names),
        fingerprint=hashlib.sha256("\n".join(dataset.fingerprint for dataset in datasets).encode()).hexdigest(),
        bad=tuple(image for dataset in datasets for image in dataset.bad),
        license=_said([dataset.license or "not known" for dataset in datasets], names) if known else None,
        notes=(*notes, *_leaks(datasets, names)),
        hflip=all(dataset.hflip for dataset in datasets),
        tasks=tasks,
        val_cut=all(dataset.val_cut for dataset in datasets),
        sets=tuple(sets),
    )


def _leaks(datasets: Sequence[Dataset], names: Sequence[str]) -> list[str]:
    """Images on which one data set reports and another trains: each was cut by itself."""
    notes = []
    for name, dataset in zip(names, datasets, strict=True):
        reported = dataset.contents.get("test", frozenset())
        for other, its in zip(names, datasets, strict=True):
            trained = its.contents.get("train", frozenset()) | its.contents.get("val", frozenset())
            same = len(reported & trained) if its is not dataset else 0
            if same:
                notes.append(
                    f"{name}: {same} image(s) that it reports on are exact copies of images that {other} trains on; "
                    "give both the same split, in a column `split`"
                )
    return notes


def _source(datasets: Sequence[Dataset]) -> tuple[Reader, Decoded | None]:
    """What reads the images of all parts, and their stores: one of each, so that parts can be put together."""
    sources = [dataset.train.source for dataset in datasets]
    first = next((source.store for source in sources if source.store is not None), None)
    stores = tuple(source.store for source in sources)
    return (
        _Readers(tuple(source.reader for source in sources)),
        None if first is None else _Stores(stores, first.side, first.interpolation),
    )


def _one_part(
    parts: Sequence[Part], names: Sequence[str], tasks: tuple[Task, ...], reader: Reader, store: Decoded | None
) -> Part:
    sources = [part.source for part in parts]
    named = list(enumerate(zip(names, sources, strict=True)))
    items = [item._replace(id=f"{name}/{item.id}", locator=_Located(number, item.locator))
             for number, (name, source) in named for item in source.items]  # fmt: skip
    count = len(parts)
    rows = [row * count + number if row >= 0 else -1
            for number, source in enumerate(sources) for row in source.rows or [-1] * len(source.items)]  # fmt: skip
    return Part(
        role=parts[0].role,
        items=items,
        labels=[target for part in parts for target in _widened(part, tasks)],
        classes=output_names(tasks),
        reader=reader,
        store=store,
        rows=None if store is None else rows,
        hflip=all(part.hflip for part in parts),
        on_bad_image=parts[0].on_bad_image,
        tasks=tasks,
    )


def _widened(part: Part, tasks: Sequence[Task]) -> list[Target]:
    """The part's targets with room for all tasks, in their order."""
    return widened(part.targets, part.tasks, tasks)


def _with_statistics(dataset: Dataset) -> Dataset:
    """The tasks with mean and deviation of the values that are trained on, in the data set and its parts."""
    tasks = fitted(dataset.tasks, dataset.train.targets)
    parts: dict[str, Any] = {role: part.answering(tasks, part.targets) for role, part in dataset.parts.items()}
    return replace(dataset, tasks=tasks, **parts)


def _said(texts: Sequence[str], names: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


class _Located(NamedTuple):
    """Where an image is: in which data set, and where there."""

    number: int
    locator: Any


@dataclass(frozen=True)
class _Readers:
    """Reads images of several data sets."""

    readers: tuple[Reader, ...]

    def read(self, locator: _Located) -> bytes:
        """The encoded bytes of one image."""
        return self.readers[locator.number].read(locator.locator)


@dataclass(frozen=True)
class _Stores:
    """The decoded stores of several data sets; a row says which of them by what is left over."""

    stores: tuple[Store | None, ...]
    side: int
    interpolation: str

    def pixels(self, row: int) -> Pixels | None:
        """One image, (H, W, 3); None where its store does not have it."""
        place, number = divmod(row, len(self.stores))
        store = self.stores[number]
        return None if store is None else store.pixels(place)
