"""A folder of class folders, with or without train, val and test above them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zoo.data.layout import arrange, is_hidden
from zoo.data.records import Listing
from zoo.errors import DataError


@dataclass(frozen=True)
class FileReader:
    """Reads images that are files on disk; a locator is the file's path."""

    def read(self, locator: str) -> bytes:
        """The file's content."""
        with open(locator, "rb") as file:
            return file.read()


def read_folder(root: Path) -> Listing:
    """List a folder of images.

    Args:
        root: Holds class folders, or `train`, `val` (`valid`, `validation`) and `test` folders that hold them.

    Raises:
        DataError: It cannot be listed, or has no images in class folders.
    """
    files: dict[str, tuple[object, int, int]] = {}
    folders: list[str] = []
    try:
        _walk(root, "", files, folders, set())
    except OSError as error:
        raise DataError(f"cannot list {error.filename or root}", why=error.strerror or str(error)) from error
    splits, classes, notes = arrange(files, folders, str(root))
    return Listing(
        name=root.resolve().name or "images",
        key=f"folder:{root.resolve()}",
        splits=splits,
        classes=classes,
        reader=FileReader(),
        notes=notes,
    )


def _walk(
    folder: Path, prefix: str, files: dict[str, tuple[object, int, int]], folders: list[str], above: set[str]
) -> None:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link back to a folder that we are inside of
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_hidden(entry.name):
                continue
            path = f"{prefix}{entry.name}"
            if entry.is_dir():
                folders.append(path)
                _walk(Path(entry.path), f"{path}/", files, folders, above | {real})
            elif entry.is_file():
                status = entry.stat()
                files[path] = (os.path.abspath(entry.path), status.st_size, status.st_mtime_ns)
