"""The cache folder: decoded images and cached features. Deleting it loses time, no results."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.base.files import cache_dir, friendly_os_errors
from zoo.base.row_file import RowFormat

ACTIVATIONS = ".acts"  # suffix of a file of cached features
IMAGES = ".store"  # suffix of a file of decoded images
ACTIVATION_ROWS = RowFormat(b"ZOOACTS1", described=True)
IMAGE_ROWS = RowFormat(b"ZOOSTOR2", described=False)
_TRIM_ABANDONED = 24 * 3600  # seconds after which `trim` takes a temporary file for abandoned by its writer
_CLEAR_ABANDONED = 3600  # the same for `clear`, which a user asked for


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the cache."""

    kind: str  # "images" | "activations" | "unfinished"
    path: Path
    bytes: int
    age: float  # seconds since it was last used
    about: str  # its contents, in words

    def record(self) -> dict[str, Any]:
        """The file as plain values."""
        return {**asdict(self), "path": str(self.path), "age": round(self.age, 1)}


_apart: Path | None = None  # set while `activations_apart` redirects the cached features


def features_folder() -> Path:
    """The folder of cached features."""
    return _apart or cache_dir() / "activations"


@contextlib.contextmanager
def activations_apart(folder: Path) -> Iterator[None]:
    """Read and write cached features only in another folder within the block."""
    global _apart
    before, _apart = _apart, folder
    try:
        yield
    finally:
        _apart = before


def stored() -> list[Stored]:
    """Every file of decoded images and of cached features, most recently used first."""
    found: list[Stored] = []
    for folder in (cache_dir() / "stores", features_folder()):
        for path in folder.glob("*") if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # another process may be removing it
                status = path.stat()
                kind = {IMAGES: "images", ACTIVATIONS: "activations"}.get(path.suffix, "unfinished")
                age = max(0.0, time.time() - status.st_mtime)
                found.append(Stored(kind, path, status.st_size, age, _about(kind, path)))
    return sorted(found, key=lambda entry: (entry.age, entry.path))


def clear(older_than: float = 0.0) -> list[Stored]:
    """Remove and return the files last used at least `older_than` seconds ago, except those being written.

    A file that another process has open stays readable there. Raises DiskError if a file cannot be removed.
    """
    removed = []
    for entry in stored():
        if entry.age < (max(older_than, _CLEAR_ABANDONED) if entry.kind == "unfinished" else older_than):
            continue
        with friendly_os_errors(entry.path):
            entry.path.unlink(missing_ok=True)
        removed.append(entry)
    return removed


def _about(kind: str, path: Path) -> str:
    if kind == "unfinished":
        return "being written"
    try:
        with path.open("rb") as file:
            if kind == "images":
                return f"{IMAGE_ROWS.header(file).number:,} images"
            facts = json.loads(file.read(min(ACTIVATION_ROWS.header(file).number, 1 << 20)))
        shape = " x ".join(map(str, facts["shape"]))
        return f"{facts['backbone']} before {facts['entry']} on {facts['dataset']}, {facts['view']}, {shape}"
    except (ValueError, KeyError, TypeError):
        return "damaged"


def trim(folder: Path, suffix: str, limit: int, keep: Collection[Path] = ()) -> list[Path]:
    """Remove and return a folder's least recently used files with the suffix, until `limit` bytes of them are left.

    Files in `keep` count but stay; abandoned temporary files go as well.
    """
    entries: list[tuple[float, int, Path]] = []
    removed: list[Path] = []
    if not folder.is_dir():
        return removed
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be trimming too
            status = path.stat()
            if path.name.endswith(".tmp") and time.time() - status.st_mtime > _TRIM_ABANDONED:
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
