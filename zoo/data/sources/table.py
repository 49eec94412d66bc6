"""Table source: CSV, TSV, Parquet or JSON lines, a row per image."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.untrusted import parse_json
from zoo.data.sources.cells import label_text
from zoo.data.sources.class_folders import SPLIT_NAMES
from zoo.data.sources.columns import label_columns, read_targets, wanted_tasks
from zoo.data.sources.image_folder import FileReader
from zoo.data.types import DataOptions, Item, Listing, Progress
from zoo.errors import DataError
from zoo.tasks.schema import Target, in_order, output_names

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
SPLIT_COLUMN = "split"
ROWS_LIMIT = 50_000_000
LABEL_LIMIT = 10_000  # characters of a class's name
PATH_LIMIT = 4096  # characters of a path, as Linux has it
SHOWN = 20  # columns that a message lists
WIDE = 1000  # columns of a CSV above which only the wanted ones are read


def is_table(path: Path) -> bool:
    """Whether a file has a table's extension."""
    return path.suffix.lower() in SUFFIXES


FORM = f"a table ({', '.join(SUFFIXES)})"


def claims(ref: str) -> bool:
    """Whether it is a path with a table's extension."""
    return is_table(Path(ref).expanduser()) and Path(ref).expanduser().exists()


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List the images that a table names; relative paths are relative to its folder.

    Its columns are `path`, `label` (or what the options name, see `sources/columns.py`) and, if it has one, `split`.
    Raises DataError if it cannot be read, lacks a column, or has rows without a path, a label or a known split.
    """
    path = Path(ref).expanduser()
    if not path.is_file():
        raise DataError(f"{path} is not a file", why="it is a device or a pipe", fix="write the table into a file")
    path_column = options.path_column or "path"
    frame = _frame(path, tuple(dict.fromkeys((path_column, *label_columns(options), SPLIT_COLUMN))))
    columns = [str(column) for column in frame.columns]
    wanted = wanted_tasks(options, frame) if options.labels else ()
    needed = [name for task in wanted for name in task.columns] or [options.label_column or "label"]
    label_column = needed[0]
    needed = needed if options.labels else []
    label_option = "--task NAME=TABLE:COLUMN" if options.task_columns else "--label-column"
    for column, option in {path_column: "--path-column", **dict.fromkeys(needed, label_option)}.items():
        if column not in columns:
            names = frame.attrs["columns"]
            more = f" … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            raise DataError(
                f"{path} has no column {column!r}",
                why=f"its columns are: {', '.join(name[:100] for name in names[:SHOWN])}{more}",
                fix=f"name the right one with {option}",
            )
    if not len(frame):
        raise DataError(f"{path} has no rows", fix="add a row per image")
    for column in (path_column, *(() if wanted else needed)):
        empty = frame.index[frame[column].isna()]
        if len(empty):
            raise DataError(
                f"{path}: {len(empty)} row(s) have no {column}", why=f"the first is row {int(empty[0]) + 1}"
            )
    paths = [str(value) for value in frame[path_column]]
    split_names = _split_names(path, frame) if SPLIT_COLUMN in columns else ["all"] * len(paths)
    read = read_targets(path, frame, wanted, options, paths, split_names) if wanted else None
    rows: Sequence[int] = read.rows if read else range(len(paths))
    if read:
        labels: Sequence[str | Target] = read.targets
        _refuse_odd(path, paths, output_names(read.tasks))
    else:
        cells = frame[label_column] if label_column in columns else [None] * len(paths)
        labels = texts = ["" if value is None or value != value else label_text(value) for value in cells]
        _refuse_odd(path, paths, texts)
    base = path.resolve().parent
    splits: dict[str, list[Item]] = {}
    seen: Counter[str] = Counter()
    outside = 0
    for row, label in zip(rows, labels, strict=True):
        name = paths[row]
        file = os.path.join(base, name)
        try:
            status = os.stat(file)
            size, stamp = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):  # a name can hold what no path can
            size, stamp = 0, 0  # the scan names it as unreadable
        seen[name] += 1
        outside += not Path(os.path.normpath(file)).is_relative_to(base)
        identity = name if seen[name] == 1 else f"{name}#{seen[name]}"
        splits.setdefault(split_names[row], []).append(Item(identity, label, file, size, stamp))
    training = splits.get("train") or next(iter(splits.values()))
    twice = sum(count > 1 for count in seen.values())
    notes = [f"{twice} path(s) appear in more than one row"] if twice else []
    if outside:
        notes.append(f"{outside} path(s) of the table lead out of its folder; they are read there")
    tasks = read.tasks if read else ()
    return Listing(
        name=path.stem,
        key=f"table:{path.resolve()}",
        splits=splits,
        classes=output_names(tasks) if tasks else in_order({str(item.label) for item in training if item.label}),
        reader=FileReader(),
        notes=(*notes, *(read.notes if read else ())),
        tasks=tasks,
    )


def columns_of(path: Path, wanted: Sequence[str]) -> list[str]:
    """The names of a table's columns; of JSON lines, which may differ from line to line, the wanted and a few more."""
    frame = _frame(path, wanted)
    return list(dict.fromkeys(map(str, [*frame.columns, *frame.attrs["columns"]])))


def _frame(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The wanted columns that the table has; all column names are in `attrs["columns"]`."""
    import pandas as pd

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _parquet(path, wanted)
        if suffix in (".jsonl", ".ndjson"):
            return _json_lines(path, wanted)
        separator = "\t" if suffix == ".tsv" else ","
        columns = _header(path, separator)
        if len(columns) > WIDE:
            return _wide(path, separator, columns, wanted)
        with warnings.catch_warnings():
            # A row with more fields than the header would shift the columns, and every label with them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Labels stay as they are written: "01" is not 1, and "NA" may be a class.
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_values=[""], index_col=False)
        frame.attrs["columns"] = columns
        return frame
    except Exception as error:  # each parser has errors of its own
        raise DataError(
            f"{path} cannot be read as {suffix.removeprefix('.')}", why=" ".join(str(error).split())[:300]
        ) from error


def _header(path: Path, separator: str) -> list[str]:
    """The first line that is not empty."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next((row for row in csv.reader(file, delimiter=separator) if row), [])


def _wide(path: Path, separator: str, columns: list[str], wanted: Sequence[str]) -> pd.DataFrame:
    """The wanted columns of very many: pandas takes a second for ten thousand, and with `usecols` accepts long rows."""
    import pandas as pd

    places = {name: columns.index(name) for name in wanted if name in columns}
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        for row in reader:
            if len(row) > len(columns):
                raise ValueError(f"line {reader.line_num} has {len(row):,} fields, the header {len(columns):,}")
            if row:
                rows.append([row[place] if place < len(row) else "" for place in places.values()])
    frame = pd.DataFrame(rows[1:], columns=list(places), dtype=str).replace("", None)
    frame.attrs["columns"] = columns
    return frame


def _parquet(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """Rows are counted before they are read: equal rows take no space in the file."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if file.metadata.num_rows > ROWS_LIMIT:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows; at most {ROWS_LIMIT:,} are read")
        columns = list(file.schema_arrow.names)
        twice = sorted({name for name in columns if name in wanted and columns.count(name) > 1})
        if twice:
            raise ValueError(f"it has the column {twice[0]!r} twice")
        rows = file.read(columns=[name for name in columns if name in wanted])
    rows.validate(full=True)  # or texts that are not UTF-8 would fail at their first use
    frame: pd.DataFrame = rows.to_pandas()
    frame.attrs["columns"] = columns
    return frame


def _json_lines(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, None] = {}
    rows = []
    for row in _objects(path):
        rows.append({name: row[name] for name in wanted if name in row})
        if len(columns) <= SHOWN:
            columns |= dict.fromkeys(row)
    frame = pd.DataFrame.from_records(rows, columns=[name for name in wanted if any(name in row for row in rows)])
    frame.attrs["columns"] = list(columns)
    return frame


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError("every line must be an object")
                yield row


def _refuse_odd(path: Path, paths: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse addresses, which are not fetched, and paths and class names that are too long to be meant."""
    address = next((name for name in paths if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://", name)), None)
    if address is not None:
        raise DataError(
            f"{path} names images on the network, such as {address[:100]}",
            why="zoo fetches nothing that a table names",
            fix="download the images, and write their paths instead",
        )
    for values, limit, what, option in (
        (paths, PATH_LIMIT, "path", "--path-column"),
        (labels, LABEL_LIMIT, "class name", "--label-column"),
    ):
        long = next((value for value in values if len(value) > limit), None)
        if long is not None:
            raise DataError(
                f"{path} has a {what} of {len(long):,} characters",
                why=f"it begins with {long[:60]!r}; at most {limit:,} are possible",
                fix=f"name another column with {option}",
            )


def _split_names(path: Path, frame: pd.DataFrame) -> list[str]:
    names = [str(value).strip() for value in frame[SPLIT_COLUMN]]
    unknown = sorted({name for name in names if name.lower() not in SPLIT_NAMES})
    if unknown:
        raise DataError(
            f"{path}: the column {SPLIT_COLUMN!r} has values that are not splits: {', '.join(unknown[:5])}",
            fix="write train, val or test; or rename the column if it means something else",
        )
    return [SPLIT_NAMES[name.lower()] for name in names]
