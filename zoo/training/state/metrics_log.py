"""The log of a training: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.base.files import friendly_os_errors, replacing


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line.

    Raises:
        DiskError: It cannot be written.
    """
    with friendly_os_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_to(path: Path, lines: int) -> None:
    """Keep the first lines of it alone; a log that is not there begins empty."""
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if path.is_file() else []
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
