"""Data of several tasks: a table's columns, or several data sets joined."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.dataset import Dataset, Origin
from zoo.data.part import Decoded, Part
from zoo.data.sources.cells import parts_of
from zoo.data.sources.table import columns_of, is_table
from zoo.data.store.decode import Pixels
from zoo.data.targets import fitted, widened
from zoo.data.types import RECORDED, DataOptions, Reader, TaskColumns
from zoo.errors import DataError
from zoo.tasks.schema import MANY, UNASKED, Task, TaskSpec, is_plain, output_names


def evaluation_options(ref: str, tasks: Sequence[Task], specs: Sequence[TaskSpec], options: DataOptions) -> DataOptions:
    """The options that open a data set to evaluate a model of these tasks.

    A table is read for each task whose column it has: the one of training (`specs`), else one of the task's name; other
    tasks get no targets. Raises DataError if it has none of the columns, or if a label separator separates nothing.
    """
    if is_plain(tasks):
        return options
    options = replace(options, tasks=tuple(tasks))
    if not specs and len(tasks) == 1 and tasks[0].name == UNASKED and tasks[0].facts.several:
        return replace(options, problem=MANY)
    _refuse_idle_separator(tasks, options)
    if not is_table(Path(ref)):
        return options
    in_training = {spec.name: _task_columns(spec) for spec in specs}
    wanted = [in_training.get(task.name, TaskColumns(task.name, (task.name,))) for task in tasks]
    names = [column for task in wanted for column in task.columns]
    available = set(columns_of(Path(ref), names))
    usable = tuple(task for task in wanted if set(task.columns) <= available)
    if not usable:
        raise DataError(
            f"{ref} has targets for none of the model's tasks: it has none of the columns {', '.join(names)}",
            why=f"its columns are: {', '.join(sorted(available)[:20])}",
            fix="name the columns as in training, or after the tasks",
        )
    return replace(options, task_columns=usable)


def options_by_set(options: DataOptions) -> Iterator[tuple[str, DataOptions]]:
    """Each data set that the options' tasks name, and the options to open it alone.

    Raises DataError for tasks that it cannot give.
    """
    for ref, specs in _by_set(options).items():
        if is_table(Path(ref)):
            yield ref, replace(options, specs=(), task_columns=tuple(map(_task_columns, specs)))
        else:
            _require_plain(ref, specs)
            yield ref, replace(options, specs=(), task_columns=(), label_separator=None)


def join(datasets: Mapping[str, Dataset], options: DataOptions) -> Dataset:
    """The data sets of the options' tasks, by reference, as one with all of these tasks."""
    opened = []
    for dataset, specs in zip(datasets.values(), _by_set(options).values(), strict=True):
        named = (replace(dataset.tasks[0], name=specs[0].name, plain=False),)
        opened.append(_with_tasks(dataset, named, named) if is_plain(dataset.tasks) else dataset)
    by_name = {task.name: task for dataset in opened for task in dataset.tasks}
    tasks = tuple(by_name[spec.name] for spec in options.specs)
    _refuse_idle_separator(tasks, options)
    joined = _with_tasks(opened[0], tasks) if len(opened) == 1 else _joined(opened, list(datasets), tasks)
    return _with_tasks(joined, fitted(tasks, joined.train.targets))


def _by_set(options: DataOptions) -> dict[str, list[TaskSpec]]:
    by_ref: dict[str, list[TaskSpec]] = {}
    for spec in options.specs:
        by_ref.setdefault(spec.dataset, []).append(spec)
    return by_ref


def _task_columns(spec: TaskSpec) -> TaskColumns:
    column = spec.column or "label"
    if "," in column:
        return TaskColumns(spec.name, tuple(parts_of(column, ",")), MANY, spec.levels)
    return TaskColumns(spec.name, (column,), spec.kind, spec.levels)


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
            f"{ref} has one class per image, so it cannot give {wrong}",
            fix=f"write --task {first.name}={ref}, or name a table with columns",
        )


def _with_tasks(dataset: Dataset, tasks: tuple[Task, ...], own: tuple[Task, ...] = ()) -> Dataset:
    """The data set with targets for these tasks, matched by name; `own` renames the tasks that it has."""
    parts: dict[str, Any] = {
        role: part.with_targets(tasks, widened(part.targets, own or part.tasks, tasks))
        for role, part in dataset.parts.items()
    }
    return replace(dataset, tasks=tasks, classes=output_names(tasks), **parts)


def _joined(datasets: Sequence[Dataset], refs: Sequence[str], tasks: tuple[Task, ...]) -> Dataset:
    names: list[str] = []
    for dataset in datasets:
        names.append(dataset.name if dataset.name not in names else f"{dataset.name}-{len(names) + 1}")
    named = list(zip(names, datasets, strict=True))
    first = next((dataset.train.store for dataset in datasets if dataset.train.store is not None), None)
    stores = tuple(dataset.train.store for dataset in datasets)
    # One reader and one store for all parts, so that parts can be joined.
    reader = _Readers(tuple(dataset.train.reader for dataset in datasets))
    store = None if first is None else _Stores(stores, first.side, first.interpolation)
    licenses = [dataset.license or "not known" for dataset in datasets]
    parts: dict[str, Any] = {role: _joined_part(role, named, tasks, reader, store) for role in RECORDED}
    return Dataset(
        name="+".join(names),
        classes=output_names(tasks),
        **parts,
        selected_on=_per_dataset([dataset.selected_on for dataset in datasets], names),
        reported_on=_per_dataset([dataset.reported_on for dataset in datasets], names),
        fingerprint=hashlib.sha256("\n".join(dataset.fingerprint for dataset in datasets).encode()).hexdigest(),
        bad=tuple(image for dataset in datasets for image in dataset.bad),
        license=_per_dataset(licenses, names) if any(dataset.license for dataset in datasets) else None,
        notes=(*(f"{name}: {note}" for name, dataset in named for note in dataset.notes), *_leaks(named)),
        hflip=all(dataset.hflip for dataset in datasets),
        tasks=tasks,
        val_cut=all(dataset.val_cut for dataset in datasets),
        sets=tuple(
            Origin(
                ref,
                name,
                tuple(task.name for task in its.tasks),
                its.fingerprint,
                its.license,
                selected_on=its.selected_on,
                reported_on=its.reported_on,
            )
            for ref, (name, its) in zip(refs, named, strict=True)
        ),
    )


def _leaks(named: Sequence[tuple[str, Dataset]]) -> list[str]:
    """Notes about test images of one data set that another trains on, for each was cut by itself."""
    notes = []
    for name, dataset in named:
        test = dataset.contents.get("test", frozenset())
        for other, its in named:
            trained = its.contents.get("train", frozenset()) | its.contents.get("val", frozenset())
            same = len(test & trained) if its is not dataset else 0
            if same:
                notes.append(
                    f"{name}: {same} image(s) that it reports on are exact copies of images that {other} trains on; "
                    "give both the same split, in a column `split`"
                )
    return notes


def _joined_part(
    role: str, named: Sequence[tuple[str, Dataset]], tasks: tuple[Task, ...], reader: Reader, store: Decoded | None
) -> Part:
    parts = [(number, name, dataset.parts[role]) for number, (name, dataset) in enumerate(named)]
    # As `_Stores` counts them: a row of each store in turn.
    rows = [
        -1 if row < 0 else row * len(parts) + number
        for number, _, part in parts
        for row in part.rows or [-1] * len(part)
    ]
    return Part(
        role=role,
        items=[
            item._replace(id=f"{name}/{item.id}", locator=_Located(number, item.locator))
            for number, name, part in parts
            for item in part.items
        ],
        labels=[target for _, _, part in parts for target in widened(part.targets, part.tasks, tasks)],
        classes=output_names(tasks),
        reader=reader,
        store=store,
        rows=None if store is None else rows,
        hflip=all(part.hflip for _, _, part in parts),
        on_bad_image=parts[0][2].on_bad_image,
        tasks=tasks,
    )


def _per_dataset(texts: Sequence[str], names: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


class _Located(NamedTuple):
    """The place of an image: the data set's number, and the locator there."""

    number: int
    locator: Any


@dataclass(frozen=True)
class _Readers:
    """Reads images of several data sets."""

    readers: tuple[Reader, ...]

    def read(self, locator: _Located) -> bytes:
        """The encoded bytes of one image."""
        return self.readers[locator.number].read(locator.locator)


@dataclass
class _Stores:
    """The decoded stores of several data sets; row r is row r // N of store r % N."""

    stores: tuple[Decoded | None, ...]
    side: int
    interpolation: str

    def pixels(self, row: int) -> Pixels | None:
        """One image, (H, W, 3); None if its store does not have it."""
        place, number = divmod(row, len(self.stores))
        store = self.stores[number]
        return None if store is None else store.pixels(place)
