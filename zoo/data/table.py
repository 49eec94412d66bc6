"""A table of images: CSV, TSV, Parquet or JSON lines, a row per image."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.folder import FileReader
from zoo.data.layout import SPLIT_NAMES
from zoo.data.records import DataOptions, Item, Listing
from zoo.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
SPLIT_COLUMN = "split"


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path, options: DataOptions) -> Listing:
    """List the images that a table names.

    Args:
        path: The table. Relative paths in it are relative to its folder.
        options: `path_column` and `label_column`, "path" and "label" unless given. A column `split`, where there is
            one, holds train, val (valid, validation) or test.

    Raises:
        DataError: It cannot be read, lacks a column, or has rows without a path, a label or a known split.
    """
    frame = _frame(path)
    columns = [str(column) for column in frame.columns]
    frame = frame.set_axis(columns, axis=1)
    path_column = options.path_column or "path"
    label_column = options.label_column or "label"
    for column, option in ((path_column, "--path-column"), (label_column, "--label-column")):
        if column not in columns:
            raise DataError(
                f"{path} has no column {column!r}",
                why=f"its columns are: {', '.join(columns)}",
                fix=f"name the right one with {option}",
            )
    if not len(frame):
        raise DataError(f"{path} has no rows", fix="add a row per image")
    for column in (path_column, label_column):
        empty = frame.index[frame[column].isna()]
        if len(empty):
            raise DataError(
                f"{path}: {len(empty)} row(s) have no {column}", why=f"the first is row {int(empty[0]) + 1}"
            )
    paths = [str(value) for value in frame[path_column]]
    labels = [_text(value) for value in frame[label_column]]
    split_names = _split_names(path, frame) if SPLIT_COLUMN in columns else ["all"] * len(paths)
    base = path.resolve().parent
    splits: dict[str, list[Item]] = {}
    seen: Counter[str] = Counter()
    for name, label, split in zip(paths, labels, split_names, strict=True):
        file = os.path.join(base, name)
        try:
            status = os.stat(file)
            size, stamp = status.st_size, status.st_mtime_ns
        except OSError:
            size, stamp = 0, 0  # the scan names it as unreadable
        seen[name] += 1
        identity = name if seen[name] == 1 else f"{name}#{seen[name]}"
        splits.setdefault(split, []).append(Item(identity, label, file, size, stamp))
    training = splits.get("train") or next(iter(splits.values()))
    twice = sum(count > 1 for count in seen.values())
    return Listing(
        name=path.stem,
        key=f"table:{path.resolve()}",
        splits=splits,
        classes=in_order({item.label for item in training}),
        reader=FileReader(),
        notes=(f"{twice} path(s) appear in more than one row",) if twice else (),
    )


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Class names in order: whole numbers by value, texts by their characters."""
    if all(label.lstrip("-").isdigit() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix in (".jsonl", ".ndjson"):
            return pd.DataFrame.from_records(_json_lines(path))
        separator = "\t" if suffix == ".tsv" else ","
        # Labels stay as they are written: "01" is not 1, and "NA" may be a class.
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_values=[""])
    except Exception as error:  # each parser has errors of its own
        raise DataError(
            f"{path} cannot be read as {suffix.removeprefix('.')}", why=" ".join(str(error).split())[:300]
        ) from error


def _json_lines(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be an object")
    return rows


def _text(value: object) -> str:
    """A label as text; numbers that are whole are written without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _split_names(path: Path, frame: pd.DataFrame) -> list[str]:
    names = [str(value).strip() for value in frame[SPLIT_COLUMN]]
    unknown = sorted({name for name in names if name.lower() not in SPLIT_NAMES})
    if unknown:
        raise DataError(
            f"{path}: the column {SPLIT_COLUMN!r} has values that are no split: {', '.join(unknown[:5])}",
            fix="write train, val or test; or rename the column if it means something else",
        )
    return [SPLIT_NAMES[name.lower()] for name in names]
