"""Cells of a table: a label, several, a number, or yes/no."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from zoo.tasks.schema import NAN

_YES = {"1", "1.0", "true", "yes", "y", "t"}
_NO = {"0", "0.0", "-1", "-1.0", "false", "no", "n", "f"}  # CelebA's files write -1


def label_text(value: object) -> str:
    """A label as text; whole numbers are written without a point."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def without_point(texts: Sequence[str | None]) -> list[str | None]:
    """Cells without a point if all are whole numbers: pandas writes 1.0 once a column has gaps."""
    whole = all(re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", text) for text in texts if text is not None)
    return [text.partition(".")[0] if whole and text is not None else text for text in texts]


def parts_of(text: str, separator: str) -> list[str]:
    """A cell's labels: the text between separators, stripped, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(separator) if part.strip()))


def is_list(value: Any) -> bool:
    """Whether a cell holds several values, as it can in JSON lines and Parquet."""
    return isinstance(value, list | tuple) or type(value).__name__ == "ndarray"


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    if is_list(value):
        return False
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def flag_of(value: Any) -> float | None:
    """1 for yes, 0 for no, NaN for an empty cell, None for anything else."""
    if is_missing(value):
        return NAN
    text = str(value).strip().lower()
    return 1.0 if text in _YES else 0.0 if text in _NO else None
