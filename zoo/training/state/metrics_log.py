"""The metrics log of a training: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.base.files import friendly_os_errors, replacing


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line; raises DiskError if it cannot be written."""
    with friendly_os_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_to(path: Path, lines: int) -> None:
    """Keep only the first lines; a missing log becomes an empty one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    with replacing(path) as temporary:
        temporary.write_text("".join(text.splitlines(keepends=True)[:lines]), encoding="utf-8")
