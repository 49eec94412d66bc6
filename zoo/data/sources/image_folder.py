"""Image folder source: class folders, with or without split folders above."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zoo.base.untrusted import read_bytes
from zoo.data.sources.class_folders import Files, arrange, is_hidden
from zoo.data.types import IMAGE_LIMIT, DataOptions, Listing, Progress
from zoo.errors import DataError

FILES_LIMIT = 20_000_000
FOLDERS_LIMIT = 500_000  # links to folders of links multiply
DEEPEST = 64  # levels of folders


@dataclass(frozen=True)
class FileReader:
    """Reads images that are files on disk; a locator is the file's path."""

    def read(self, locator: str) -> bytes:
        """The content. Raises OSError if it is too large or not a regular file, ValueError for a NUL in the path."""
        return read_bytes(locator, IMAGE_LIMIT)


FORM = "a folder of class folders"


def claims(ref: str) -> bool:
    """Whether it is a folder."""
    return Path(ref).expanduser().is_dir()


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List a folder of class folders, or of `train`, `val` (`valid`, `validation`) and `test` folders that hold them.

    Raises DataError if it cannot be listed or has no images in class folders.
    """
    root = Path(ref).expanduser()
    files: Files = {}
    folders: list[str] = []
    try:
        _walk(root, "", files, folders, set())
    except OSError as error:
        raise DataError(f"cannot list {error.filename or root}", why=error.strerror or str(error)) from error
    return arrange(
        files,
        folders,
        str(root),
        labels=options.labels,
        name=root.resolve().name or "images",
        key=f"folder:{root.resolve()}",
        reader=FileReader(),
    )


def _walk(folder: Path, prefix: str, files: Files, folders: list[str], above: set[str]) -> None:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder above
    if len(above) > DEEPEST:
        raise DataError(f"{folder} lies more than {DEEPEST} folders deep", fix="give a folder of class folders")
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_hidden(entry.name):
                continue
            path = f"{prefix}{entry.name}"
            if len(files) >= FILES_LIMIT or len(folders) >= FOLDERS_LIMIT:
                raise DataError(
                    f"there are more than {FILES_LIMIT:,} files or {FOLDERS_LIMIT:,} folders around {folder}",
                    why="links are followed, and may lead to the same ones many times",
                    fix="remove the links, or name the images in a table with `path` and `label` columns",
                )
            if entry.is_dir():
                folders.append(path)
                _walk(Path(entry.path), f"{path}/", files, folders, above | {real})
            elif entry.is_file():
                status = entry.stat()
                files[path] = (os.path.abspath(entry.path), status.st_size, status.st_mtime_ns)
