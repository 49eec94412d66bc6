"""A folder of class folders, with or without train, val and test above them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zoo.base.references import as_path
from zoo.base.untrusted import read_bytes
from zoo.data.sources.class_folders import arrange, is_hidden
from zoo.data.types import IMAGE_LIMIT, DataOptions, Listing, Progress
from zoo.errors import DataError

FILES_LIMIT = 20_000_000
FOLDERS_LIMIT = 500_000  # links to folders that hold links to folders make few into many
DEEPEST = 64  # folders inside of one another


@dataclass(frozen=True)
class FileReader:
    """Reads images that are files on disk; a locator is the file's path."""

    def read(self, locator: str) -> bytes:
        """The file's content.

        Raises:
            OSError: It cannot be read, is larger than an image can be, or is no regular file.
            ValueError: The path holds a NUL character.
        """
        return read_bytes(locator, IMAGE_LIMIT)


def claims(ref: str) -> bool:
    """Whether it is a folder."""
    return as_path(ref).is_dir()


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List a folder of images.

    Args:
        ref: Holds class folders, or `train`, `val` (`valid`, `validation`) and `test` folders that hold them.
        options: Whether labels are wanted, as for `arrange`.
        on_progress: Not called.

    Raises:
        DataError: It cannot be listed, or has no images in class folders.
    """
    root = as_path(ref)
    files: dict[str, tuple[object, int, int]] = {}
    folders: list[str] = []
    try:
        _walk(root, "", files, folders, set())
    except OSError as error:
        raise DataError(f"cannot list {error.filename or root}", why=error.strerror or str(error)) from error
    splits, classes, notes = arrange(files, folders, str(root), labels=options.labels)
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
