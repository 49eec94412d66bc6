"""Keeping the cache folders within bounds: what was used longest ago goes first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

ABANDONED = 24 * 3600  # seconds after which a temporary file has lost its writer


def trim(folder: Path, suffix: str, limit: int, keep: Collection[Path] = ()) -> list[Path]:
    """Remove the files used longest ago until the folder's files together are within `limit` bytes.

    Args:
        folder: Only files directly inside are looked at.
        suffix: Only files whose name ends so are counted and removed (abandoned temporary files go as well).
        limit: Bytes.
        keep: Never removed, though it is counted.

    Returns:
        What was removed.
    """
    entries: list[tuple[float, int, Path]] = []
    removed: list[Path] = []
    if not folder.is_dir():
        return removed
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be trimming too
            status = path.stat()
            if path.name.endswith(".tmp") and time.time() - status.st_mtime > ABANDONED:
                path.unlink()
            elif path.name.endswith(suffix):
                entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            break
        if path in keep:
            continue
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
            total -= size
    return removed
