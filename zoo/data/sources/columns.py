"""What a table says of its images beyond one class each: several labels, numbers, steps; one question or more.

Several labels of an image are written in one of three ways: in one cell, with a separator (or as a list, in JSON lines
and Parquet); in several rows of the same path; or in a column for each label that says whether an image has it.

Where nobody asked for tasks, an empty cell of labels says that an image has none, and the rows of a path are one image.
A task's empty cell says nothing, as of any other kind, and each row is an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
class Answered:
    """What a table's rows come to."""

    tasks: tuple[Task, ...]
    targets: list[Target]  # of the rows that are kept
    rows: list[int]  # their positions in the table: a path in several rows is one image where labels are collected
    notes: tuple[str, ...] = ()


def label_columns(options: DataOptions) -> list[str]:
    """Every name that may be a column with answers."""
    if options.task_columns:
        return [name for question in options.task_columns for name in question.columns]
    name = options.label_column or "label"
    return [name, *(parts_of(name, ",") if "," in name else ())]


def questions(options: DataOptions, frame: pd.DataFrame) -> tuple[TaskColumns, ...]:
    """What the rows answer; nothing where each has one class, as most tables do."""
    if options.task_columns:
        return options.task_columns
    column = options.label_column or "label"
    several = options.several
    if "," in column and column not in frame.columns and options.problem != ONE:
        return (TaskColumns(UNASKED, tuple(parts_of(column, ",")), MANY),)
    if options.problem == "auto" and column in frame.columns:
        several = several or any(is_list(value) for value in frame[column])
    return (TaskColumns(UNASKED, (column,), MANY),) if several else ()


def read_answers(
    path: Path, frame: pd.DataFrame, asked: Sequence[TaskColumns], options: DataOptions,
    names: Sequence[str], splits: Sequence[str],
) -> Answered:  # fmt: skip
    """Read what each row answers.

    Args:
        path: The table, for messages.
        frame: Its columns.
        asked: What is asked.
        options: The separator, and the tasks of a model that is scored, whose classes are fixed.
        names: Path of each row's image.
        splits: Split of each row.

    Raises:
        DataError: A column does not hold what its kind asks for; the message names a row or a label.
    """
    known = {task.name: task for task in options.tasks}
    training = [split in ("train", "all") for split in splits]
    if not any(training):
        training = [True] * len(splits)
    rows = list(range(len(names)))
    parts: list[tuple[Task, list[Target]]] = []
    notes: list[str] = []
    plain = not options.task_columns
    for question in asked:
        reader = _Column(path, frame, question, options.label_separator, training, known.get(question.name), plain)
        if plain and len(question.columns) == 1:
            cells, rows, extra = _collected(path, reader.label_sets(), names, splits, options)
            notes += extra
            reader.training = [training[row] for row in rows]
            parts.append(reader.read(cells))
        else:
            parts.append(reader.read())
            notes += reader.notes
            if parts[-1][0].facts.several and len(question.columns) == 1:
                _refuse_scattered(path, question, reader.label_sets(), names)
                if question.kind == parts[-1][0].kind and not options.tasks:
                    _require_several(path, question, list(frame[question.columns[0]]), reader.label_sets(), options)
    targets = [tuple(number for _, column in parts for number in column[place]) for place in range(len(rows))]
    if options.task_columns:
        telling = [place for place, target in enumerate(targets) if any(number == number for number in target)]
        if not telling:
            columns = ", ".join(name for question in asked for name in question.columns)
            raise DataError(
                f"no row of {path} answers {f'the task {asked[0].name}' if len(asked) == 1 else 'any of the tasks'}",
                why=f"nothing is written under {columns}",
                fix="fill in what is known, or name another table",
            )
        if len(telling) < len(targets):
            notes.append(f"{len(targets) - len(telling)} row(s) of {path.name} answer no task, and are left out")
            rows, targets = [rows[place] for place in telling], [targets[place] for place in telling]
    return Answered(tuple(task for task, _ in parts), targets, rows, tuple(notes))


class _Column:
    """One question's column, or columns."""

    def __init__(
        self, path: Path, frame: pd.DataFrame, question: TaskColumns, separator: str | None, training: list[bool],
        known: Task | None, plain: bool,
    ) -> None:  # fmt: skip
        self._path, self._frame, self._question, self._separator = path, frame, question, separator
        self.training, self._known, self._plain = training, known, plain
        self.notes: list[str] = []

    def read(self, sets: Sequence[Sequence[str]] | None = None) -> tuple[Task, list[Target]]:
        """The task and each row's target; or each image's, from its labels over all rows that name it."""
        question = self._question
        if len(question.columns) > 1:
            return self._of_flags()
        column = self._column(sets)
        named = self._known.kind if self._known else question.kind
        try:
            if named is not None:
                return kinds.KINDS[named].read(column)
            kind, note = kinds.guessed(column)
            self.notes += [note] if note else []
            return kind.read(column)
        except Unfit as error:
            raise self._error(error) from error

    def _column(self, sets: Sequence[Sequence[str]] | None) -> Column:
        question = self._question
        name = question.columns[0]
        values = [] if sets is not None else list(self._frame[name])
        texts = self._texts(values)
        labels = [None if is_missing(value) else found for value, found in zip(values, self.label_sets(), strict=False)]
        split = self._separator or ""
        return Column(
            name=question.name,
            place=(self._path.name, name),
            texts=texts,
            labels=labels if sets is None else sets,
            trained=self.training,
            several=any(map(is_list, values)) or (split != "" and any(split in text for text in texts if text)),
            steps=question.steps,
            known=self._known,
        )

    def _texts(self, values: Sequence[Any]) -> list[str | None]:
        """Each cell's text, whole numbers without a point unless steps or classes are written with one."""
        texts = [None if is_missing(value) else label_text(value) for value in values]
        named = {*self._question.steps, *(self._known.classes if self._known else ())}
        return texts if named.issuperset(text for text in texts if text is not None) else without_point(texts)

    def label_sets(self) -> list[list[str]]:
        """Each cell's labels."""
        found = []
        for value in self._frame[self._question.columns[0]]:
            if is_list(value):
                found.append(list(dict.fromkeys(label_text(item).strip() for item in value)))
            elif is_missing(value):
                found.append([])
            else:
                found.append(parts_of(label_text(value), self._separator) if self._separator else [label_text(value)])
        return found

    def _of_flags(self) -> tuple[Task, list[Target]]:
        columns = []
        for name in self._question.columns:
            values = [flag_of(value) for value in self._frame[name]]
            odd = next((row for row, value in enumerate(values) if value is None), None)
            if odd is not None:
                raise DataError(
                    f"{self._path}: the column {name!r} does not say whether an image has the label",
                    why=f"row {odd + 1} says {str(self._frame[name].iloc[odd])[:60]!r}",
                    fix="write 1 or 0 (or yes and no, true and false), and nothing where it is not known",
                )
            columns.append(values)
        fitted = [row for row, fits in enumerate(self.training) if fits]
        nobody = [name for name, values in zip(self._question.columns, columns, strict=True)
                  if not any(values[row] == 1.0 for row in fitted)]  # fmt: skip
        if nobody and not self._known:
            raise DataError(
                f"{self._path}: {len(nobody)} label(s) that no training image has: {', '.join(nobody[:10])}",
                why="what nobody shows cannot be learnt",
                fix="leave these columns out, or add images",
            )
        task = Task(self._question.name, MANY, self._question.columns)
        if self._known and self._known.classes != task.classes:
            try:
                refuse_unknown(set(task.classes), self._known.classes, task.facts.noun)
            except Unfit as error:
                raise self._error(error) from error
            place = {name: number for number, name in enumerate(task.classes)}
            blank: list[float | None] = [NAN] * len(self._frame)
            columns = [columns[place[name]] if name in place else blank for name in self._known.classes]
            task = self._known
        return task, [tuple(NAN if value is None else value for value in row) for row in zip(*columns, strict=True)]

    def _error(self, error: Unfit) -> DataError:
        what = f"{self._path}: the column {self._question.columns[0]!r} cannot be used"
        fix = "name another column, or leave the task out"
        if self._plain:
            return DataError(what, why=error.why, fix=error.fix or "name another column with --label-column")
        return DataError(f"{what} for the task {self._question.name}", why=error.why, fix=error.fix or fix)


def _collected(
    path: Path, cells: list[list[str]], names: Sequence[str], splits: Sequence[str], options: DataOptions
) -> tuple[list[list[str]], list[int], list[str]]:
    """The labels of each image, over all rows that name it; the first of its rows stands for it."""
    first: dict[str, int] = {}
    found: dict[str, dict[str, None]] = {}
    for row, (name, labels) in enumerate(zip(names, cells, strict=True)):
        start = first.setdefault(name, row)
        if splits[start] != splits[row]:
            raise DataError(
                f"{path}: {name} is in {splits[start]} and in {splits[row]}",
                why=f"rows {start + 1} and {row + 1} are about one image, whose labels are put together",
                fix="give all rows of an image the same split",
            )
        found.setdefault(name, {}).update(dict.fromkeys(labels))
    sets = [list(labels) for labels in found.values()]
    if not options.tasks and not any(len(labels) > 1 for labels in sets):
        column = options.label_column or "label"
        rows = "rows of one path agree" if len(first) < len(names) else "no path is in two rows"
        raise _nowhere_several(
            path, column, options, cells, f"no --label-separator was given, and {rows}",
            "leave --label-separator and --problem away",
        )  # fmt: skip
    bare = sum(not labels for labels in sets)
    return sets, list(first.values()), [f"{bare} image(s) have no label at all"] if bare else []


def _refuse_scattered(path: Path, question: TaskColumns, cells: list[list[str]], names: Sequence[str]) -> None:
    """Refuse a task's labels in several rows of one path: each row would say that the others' are not there."""
    first: dict[str, int] = {}
    for row, (name, labels) in enumerate(zip(names, cells, strict=True)):
        start = first.setdefault(name, row) if labels else row
        if set(cells[start]) != set(labels):
            raise DataError(
                f"{path}: rows {start + 1} and {row + 1} give {name} different labels",
                why=f"the task {question.name} takes each row for all that is there of an image",
                fix="write an image's labels into one cell, with the --label-separator between",
            )


def _require_several(
    path: Path, question: TaskColumns, values: list[Any], cells: list[list[str]], options: DataOptions
) -> None:
    """Refuse a task of several labels that has one of each image: what separates them is most likely another sign."""
    if any(is_list(value) for value in values) or any(len(labels) > 1 for labels in cells):
        return
    column = question.columns[0]
    raise _nowhere_several(
        path, column, options, cells, "no --label-separator was given",
        f"write --task {question.name}={path.name}:{column}:single-label",
    )  # fmt: skip


def _nowhere_several(
    path: Path, column: str, options: DataOptions, cells: list[list[str]], unsaid: str, single: str
) -> DataError:
    """The error that no image has more than one label.

    Args:
        path: The table.
        column: Where labels were looked for.
        options: The separator.
        cells: The labels of each row.
        unsaid: Why, where there is no separator.
        single: What to do where each image has one label.
    """
    texts = [text for labels in cells for text in labels]
    likely = [each for each in _SEPARATORS if each != options.label_separator and
              2 * sum(each in text for text in texts) > len(texts)]  # fmt: skip
    reason = f"no cell of {column!r} contains {options.label_separator!r}" if options.label_separator else unsaid
    fix = f"name what stands between labels with --label-separator; or where each image has one label, {single}"
    if likely:
        fix = f"most cells contain {likely[0]!r}: try --label-separator {likely[0]!r}"
    return DataError(f"no image of {path} has more than one label", why=reason, fix=fix)
