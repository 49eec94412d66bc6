"""Images to predict on: files, folders, or images in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.base.untrusted import read_bytes
from zoo.data.sources.class_folders import is_hidden, is_image_name
from zoo.data.store.decode import decode, no_warnings, upright
from zoo.data.types import IMAGE_LIMIT
from zoo.errors import DataError

Picture = str | Path | bytes | Image.Image | np.ndarray[Any, Any]
"""An image to predict on: a file or folder, a file's bytes, or pixels (H, W), (H, W, 3) or (H, W, 4), uint8."""

_Remark = Callable[[str], None]


def open_images(
    images: Iterable[Picture], remark: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, Image.Image | DataError]]:
    """Read images one by one: yields the path and an upright RGB image, or the error that says why there is none.

    Files are read whatever their extension, folders are searched for images; an image in memory is named by its place,
    `images[0]`. `remark` is called with a path and what of the file is not in its image.
    """
    for path, read in _readers(images):
        try:
            remarks: list[str] = []
            with no_warnings():
                image = read(remarks.append)
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
    """The files that `open_images` reads: a folder is replaced by the images below it, sorted."""
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


def _readers(images: Iterable[Picture]) -> Iterator[tuple[str, Callable[[_Remark], Image.Image]]]:
    """The name of every image, and the function that reads it and is given `remark`."""
    for place, given in enumerate(images):
        if isinstance(given, str | os.PathLike):
            for path in image_paths([given]):
                yield path, partial(_from_file, path)
        elif isinstance(given, bytes):
            yield f"images[{place}]", partial(decode, given)
        else:
            yield f"images[{place}]", partial(_from_memory, given)


def _from_file(path: str, remark: _Remark) -> Image.Image:
    return decode(read_bytes(path, IMAGE_LIMIT), remark)


def _from_memory(given: Any, _remark: object) -> Image.Image:
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (2, 3) or given.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(f"pixels are (H, W), (H, W, 3) or (H, W, 4) of uint8, not {given.shape} of {given.dtype}")
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise ValueError(f"an image is a path, bytes, a PIL image or an array of pixels, not {type(given).__name__}")
    return upright(given)
