"""Label columns of a table: several labels, numbers, levels, several tasks.

An image's labels are written in one of three ways: in one cell, with a separator (or as a list, in JSON lines and
Parquet); in several rows of the same path; or in a column per label that says whether an image has it.

Without named tasks, an empty cell means that an image has no labels, and the rows of a path are one image. With tasks,
an empty cell of any kind means that the target is not known, and each row is an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.sources.cells import flag_of, is_list, is_missing, label_text, parts_of, without_point
from zoo.data.types import DataOptions, TaskColumns
from zoo.errors import DataError
from zoo.tasks import kinds
from zoo.tasks.kind import Column, Unfit, refuse_unknown
from zoo.tasks.schema import MANY, NAN, ONE, UNASKED, Target, Task

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ("|", ";", ",", "/", " ")  # that a message proposes, in this order


@dataclass(frozen=True)
class TableTargets:
    """Targets of a table's images."""

    tasks: tuple[Task, ...]
    targets: list[Target]
    rows: list[int]  # each image's position in the table: its first row, if its labels are collected from several
    notes: tuple[str, ...] = ()


def label_columns(options: DataOptions) -> list[str]:
    """Every name that may be a column of labels."""
    if options.task_columns:
        return [name for task in options.task_columns for name in task.columns]
    name = options.label_column or "label"
    return [name, *(parts_of(name, ",") if "," in name else ())]


def wanted_tasks(options: DataOptions, frame: pd.DataFrame) -> tuple[TaskColumns, ...]:
    """The tasks to read from a table; none if each row has one class, as in most tables."""
    if options.task_columns:
        return options.task_columns
    column = options.label_column or "label"
    if "," in column and column not in frame.columns and options.problem != ONE:
        return (TaskColumns(UNASKED, tuple(parts_of(column, ",")), MANY),)
    lists = options.problem == "auto" and column in frame.columns and any(map(is_list, frame[column]))
    return (TaskColumns(UNASKED, (column,), MANY),) if options.several or lists else ()


def read_targets(
    path: Path, frame: pd.DataFrame, wanted: Sequence[TaskColumns], options: DataOptions,
    names: Sequence[str], splits: Sequence[str],
) -> TableTargets:  # fmt: skip
    """Read the targets of the wanted tasks; `names` and `splits` have the image path and split of each row.

    Raises DataError if a column does not hold what its kind needs; the message names a row or a label.
    """
    trained = [split in ("train", "all") for split in splits]
    if not any(trained):
        trained = [True] * len(splits)
    rows = list(range(len(names)))
    columns: list[tuple[Task, list[Target]]] = []
    notes: list[str] = []
    for task in wanted:
        reader = _Reader(path, frame, task, options, trained)
        collected = not options.task_columns and len(task.columns) == 1
        if collected:
            rows = reader.collect(names, splits)
        columns.append(reader.read())
        if not collected and len(task.columns) == 1 and columns[-1][0].facts.several:
            reader.refuse_scattered(names)
            if task.kind == columns[-1][0].kind and not options.tasks:
                reader.require_several()
        notes += reader.notes
    targets = [tuple(number for _, column in columns for number in column[place]) for place in range(len(rows))]
    if options.task_columns:
        known = [place for place, target in enumerate(targets) if any(number == number for number in target)]
        if not known:
            which = f"the task {wanted[0].name}" if len(wanted) == 1 else "any of the tasks"
            raise DataError(
                f"no row of {path} has a target for {which}",
                why=f"all cells under {', '.join(label_columns(options))} are empty",
                fix="fill in what is known, or name another table",
            )
        if len(known) < len(targets):
            notes.append(f"{len(targets) - len(known)} row(s) of {path.name} have no target, and are left out")
            rows, targets = [rows[place] for place in known], [targets[place] for place in known]
    return TableTargets(tuple(task for task, _ in columns), targets, rows, tuple(notes))


@dataclass
class _Reader:
    """Reads the column, or columns, of one task."""

    path: Path
    frame: pd.DataFrame
    wanted: TaskColumns
    options: DataOptions
    trained: list[bool]  # of each row, or of each image once collected
    notes: list[str] = field(default_factory=list)
    collected: list[list[str]] | None = None  # the labels of each image, over all rows that name it

    @property
    def known(self) -> Task | None:
        """The task of the model to evaluate, whose classes are fixed."""
        return next((task for task in self.options.tasks if task.name == self.wanted.name), None)

    @cached_property
    def labels(self) -> list[list[str]]:
        """The labels in each cell."""
        separator = self.options.label_separator
        labels = []
        for value in self.frame[self.wanted.columns[0]]:
            if is_list(value):
                labels.append(list(dict.fromkeys(label_text(item).strip() for item in value)))
            elif is_missing(value):
                labels.append([])
            else:
                labels.append(parts_of(label_text(value), separator) if separator else [label_text(value)])
        return labels

    def collect(self, names: Sequence[str], splits: Sequence[str]) -> list[int]:
        """Join the labels of all rows that name an image; returns the first row of each image."""
        first: dict[str, int] = {}
        joined: dict[str, dict[str, None]] = {}
        for row, (name, labels) in enumerate(zip(names, self.labels, strict=True)):
            start = first.setdefault(name, row)
            if splits[start] != splits[row]:
                raise DataError(
                    f"{self.path}: {name} is in {splits[start]} and in {splits[row]}",
                    why=f"rows {start + 1} and {row + 1} are about one image, whose labels are put together",
                    fix="give all rows of an image the same split",
                )
            joined.setdefault(name, {}).update(dict.fromkeys(labels))
        self.collected = [list(labels) for labels in joined.values()]
        self.trained = [self.trained[row] for row in first.values()]
        if not self.options.tasks and not any(len(labels) > 1 for labels in self.collected):
            rows = "rows of one path agree" if len(first) < len(names) else "no path is in two rows"
            raise self._nowhere_several(
                f"no --label-separator was given, and {rows}", "leave --label-separator and --problem out"
            )
        bare = sum(not labels for labels in self.collected)
        self.notes += [f"{bare} image(s) have no label at all"] if bare else []
        return list(first.values())

    def read(self) -> tuple[Task, list[Target]]:
        """The task and each row's target; or each image's, once collected."""
        kind = self.known.kind if self.known else self.wanted.kind
        try:
            if len(self.wanted.columns) > 1:
                return self._of_flags()
            column = self._column()
            if kind is not None:
                return kinds.KINDS[kind].read(column)
            guessed, note = kinds.guessed(column)
            self.notes += [note] if note else []
            return guessed.read(column)
        except Unfit as error:
            what = f"{self.path}: the column {self.wanted.columns[0]!r} cannot be used"
            fix = "name another column with --label-column"
            if self.options.task_columns:
                what, fix = f"{what} for the task {self.wanted.name}", "name another column, or leave the task out"
            raise DataError(what, why=error.why, fix=error.fix or fix) from error

    def refuse_scattered(self, names: Sequence[str]) -> None:
        """Refuse a task's labels in several rows of one path: each row would say that the others' are absent."""
        first: dict[str, int] = {}
        for row, (name, labels) in enumerate(zip(names, self.labels, strict=True)):
            start = first.setdefault(name, row) if labels else row
            if set(self.labels[start]) != set(labels):
                raise DataError(
                    f"{self.path}: rows {start + 1} and {row + 1} give {name} different labels",
                    why=f"the task {self.wanted.name} reads all labels of an image from one row",
                    fix="write an image's labels into one cell, with the --label-separator between",
                )

    def require_several(self) -> None:
        """Refuse a task of several labels with one per image: most likely the separator is another."""
        column = self.wanted.columns[0]
        if not any(map(is_list, self.frame[column])) and not any(len(labels) > 1 for labels in self.labels):
            raise self._nowhere_several(
                "no --label-separator was given",
                f"write --task {self.wanted.name}={self.path.name}:{column}:single-label",
            )

    def _column(self) -> Column:
        name = self.wanted.columns[0]
        values = [] if self.collected is not None else list(self.frame[name])
        texts = [None if is_missing(value) else label_text(value) for value in values]
        exact = {*self.wanted.levels, *(self.known.classes if self.known else ())}
        if not exact.issuperset(text for text in texts if text is not None):
            texts = without_point(texts)
        separator = self.options.label_separator
        labels: Any = self.collected
        if labels is None:
            labels = [None if is_missing(value) else cell for value, cell in zip(values, self.labels, strict=True)]
        return Column(
            name=self.wanted.name,
            place=(self.path.name, name),
            texts=texts,
            labels=labels,
            trained=self.trained,
            several=any(map(is_list, values)) or bool(separator and any(separator in text for text in texts if text)),
            levels=self.wanted.levels,
            known=self.known,
        )

    def _of_flags(self) -> tuple[Task, list[Target]]:
        names = self.wanted.columns
        columns = {name: self._flags(name) for name in names}
        untrained = [
            name
            for name, flags in columns.items()
            if not any(fits and flag == 1.0 for fits, flag in zip(self.trained, flags, strict=True))
        ]
        if untrained and not self.known:
            raise DataError(
                f"{self.path}: {len(untrained)} label(s) that no training image has: {', '.join(untrained[:10])}",
                why="a label that no image has cannot be learnt",
                fix="leave these columns out, or add images",
            )
        task = Task(self.wanted.name, MANY, names)
        if self.known and self.known.classes != names:
            refuse_unknown(set(names), self.known.classes, task.facts.noun)
            task = self.known
        unknown = [NAN] * len(self.frame)
        return task, list(zip(*(columns.get(name, unknown) for name in task.classes), strict=True))

    def _flags(self, name: str) -> list[float]:
        values = [flag_of(value) for value in self.frame[name]]
        if None in values:
            row = values.index(None)
            raise DataError(
                f"{self.path}: the column {name!r} does not say whether an image has the label",
                why=f"row {row + 1} says {str(self.frame[name].iloc[row])[:60]!r}",
                fix="write 1 or 0 (or yes and no, true and false), and nothing if it is not known",
            )
        return [value for value in values if value is not None]

    def _nowhere_several(self, no_separator: str, single: str) -> DataError:
        """The error that no image has several labels, with the reason if no separator was given.

        `single` says what to do if each image has one label.
        """
        given = self.options.label_separator
        texts = [text for labels in self.labels for text in labels]
        likely = [
            sign for sign in _SEPARATORS if sign != given and 2 * sum(sign in text for text in texts) > len(texts)
        ]
        fix = f"name what separates labels with --label-separator; or if each image has one label, {single}"
        if likely:
            fix = f"most cells contain {likely[0]!r}: try --label-separator {likely[0]!r}"
        return DataError(
            f"no image of {self.path} has more than one label",
            why=f"no cell of {self.wanted.columns[0]!r} contains {given!r}" if given else no_separator,
            fix=fix,
        )
