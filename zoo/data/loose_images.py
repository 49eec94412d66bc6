"""Loose images to predict on: files and folders, in the order they were given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image

from zoo.base.untrusted import read_bytes
from zoo.data.sources.class_folders import is_hidden, is_image_name
from zoo.data.store.decode import decode, no_warnings
from zoo.data.types import IMAGE_LIMIT
from zoo.errors import DataError


def open_images(
    paths: Iterable[str | Path], remark: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, Image.Image | DataError]]:
    """Read images one after the other.

    Args:
        paths: Files, read whatever their names end in; and folders, searched to the bottom for files with an image's
            extension, sorted.
        remark: Told, by path, what of a file is not in its image.

    Yields:
        The path and an RGB image as a person would see it, or the error that says why there is none.
    """
    for path in image_paths(paths):
        try:
            remarks: list[str] = []
            with no_warnings():
                image = decode(read_bytes(path, IMAGE_LIMIT), remarks.append)
            if remark is not None:
                for text in remarks:
                    remark(path, text)
            yield path, image
        except FileNotFoundError:
            yield path, DataError(f"{path} is not there", why="there is no such file or folder")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            yield path, DataError(f"the image {path} cannot be read", why=reason)


def image_paths(paths: Iterable[str | Path]) -> Iterator[str]:
    """The files that `open_images` reads: folders are replaced by the images below them."""
    for given in paths:
        path = os.fspath(given)
        if not os.path.isdir(path):
            yield path
            continue
        for folder, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not is_hidden(name))
            for name in sorted(names):
                if is_image_name(name) and not is_hidden(name):
                    yield os.path.join(folder, name)
