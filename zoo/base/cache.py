"""What zoo keeps in its cache folder to be quick: decoded images and activations. All of it can be made again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.files import cache_dir, friendly_os_errors
from zoo.base.row_file import RowFormat

ACTIVATIONS = ".acts"  # what such a file's name ends with
IMAGES = ".store"
ACTIVATION_ROWS = RowFormat(b"ZOOACTS1", described=True)
IMAGE_ROWS = RowFormat(b"ZOOSTOR2", described=False)
_ABANDONED = 3600  # seconds after which a file that is still being written has lost its writer


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the cache."""

    kind: str  # "images" | "activations" | "unfinished"
    path: Path
    bytes: int
    age: float  # seconds since it was last used
    about: str  # what it is for

    def record(self) -> dict[str, Any]:
        """The file as plain values."""
        return {"kind": self.kind, "path": str(self.path), "bytes": self.bytes, "age": round(self.age, 1),
                "about": self.about}  # fmt: skip


_apart: Path | None = None  # where activations are instead, for now


def features_folder() -> Path:
    """Where files of activations are."""
    return _apart or cache_dir() / "activations"


@contextlib.contextmanager
def activations_apart(folder: Path) -> Iterator[None]:
    """Keep activations in another folder within the block, and find none but those that are there."""
    global _apart
    before, _apart = _apart, folder
    try:
        yield
    finally:
        _apart = before


def stored() -> list[Stored]:
    """Every store of decoded images and of activations, the one used last first."""
    found: list[Stored] = []
    for folder in (cache_dir() / "stores", features_folder()):
        for path in folder.glob("*") if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # another process may be removing it
                status = path.stat()
                kind = {IMAGES: "images", ACTIVATIONS: "activations"}.get(path.suffix, "unfinished")
                about = _ABOUT[kind](path)
                found.append(Stored(kind, path, status.st_size, max(0.0, time.time() - status.st_mtime), about))
    return sorted(found, key=lambda entry: (entry.age, entry.path))


def clear(older_than: float = 0.0) -> list[Stored]:
    """Remove stores; what another process has open stays readable there.

    Args:
        older_than: Only what was last used so many seconds ago.

    Returns:
        What was removed. A file that is being written just now is left alone.

    Raises:
        ZooError: A file cannot be removed.
    """
    removed = []
    for entry in stored():
        if entry.age < (max(older_than, _ABANDONED) if entry.kind == "unfinished" else older_than):
            continue
        with friendly_os_errors(entry.path):
            entry.path.unlink(missing_ok=True)
        removed.append(entry)
    return removed


def _about_images(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"{IMAGE_ROWS.header(file).number:,} images"
    except ValueError:
        return "damaged"


def _about_activations(path: Path) -> str:
    try:
        with path.open("rb") as file:
            length = ACTIVATION_ROWS.header(file).number
            facts = json.loads(file.read(min(length, 1 << 20)))
        shape = " x ".join(map(str, facts["shape"]))
        return f"{facts['backbone']} before {facts['entry']} on {facts['dataset']}, {facts['view']}, {shape}"
    except (ValueError, KeyError, TypeError):
        return "damaged"


def _about_unfinished(_path: Path) -> str:
    return "being written"


_ABOUT = {"images": _about_images, "activations": _about_activations, "unfinished": _about_unfinished}


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
