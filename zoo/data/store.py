"""The decoded store: every image of a data set, resized once, as raw bytes in one memory-mapped file.

An image is resized as timm's evaluation transform resizes it (short side to `side`, same interpolation, same code), so
that a centre crop of the stored image equals, pixel for pixel, what that transform makes of the original. A store is
known by the contents it holds, the side, the interpolation and the decoder: changed images make another store.

File: a header (magic, number of images, place of the index, length of the file, sha256 of the index), the pixels as
(H, W, 3) uint8 one image after the other, the index (content hash, offset, height, width, crc32). The crc of an image
is checked when a process first reads it; a damaged image is decoded from its source instead and the store removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import functional

from zoo.data import caches, decode
from zoo.data.records import GiB
from zoo.run import cache_dir

RESERVE = 2 * GiB  # free disk space that a store never takes
LONGEST = 16  # an image longer than so many times its short side is left out and read from its source

_MAGIC = b"ZOOSTOR1"
_HEADER = struct.Struct("<8sQQQ32s")
_ROW = np.dtype([("sha", "u1", (32,)), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])

Pixels = npt.NDArray[np.uint8]


def resized(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """Resize an RGB image so that its short side is `side` pixels, as timm's evaluation transform does."""
    result: Image.Image = functional.resize(image, side, interpolation=str_to_interp_mode(interpolation))
    return result


def store_path(contents: Iterable[bytes], side: int, interpolation: str) -> Path:
    """Where the store of these image contents (sha256 digests) is, or would be."""
    digest = hashlib.sha256(f"{decode.VERSION}\n{PIL.__version__}\n{side}\n{interpolation}\n".encode())
    for content in sorted(set(contents)):
        digest.update(content)
    return cache_dir() / "stores" / f"{digest.hexdigest()[:40]}.store"


class Store:
    """One finished store, opened for reading.

    Raises:
        ValueError: The file is damaged or cut short.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, side: int, interpolation: str) -> None:
        self.path = path
        self.side = side
        self.interpolation = interpolation
        self._open()

    def _open(self) -> None:
        with self.path.open("rb") as file:
            header = file.read(_HEADER.size)
            if len(header) != _HEADER.size:
                raise ValueError("no header")
            magic, count, place, length, index_hash = _HEADER.unpack(header)
            actual = os.fstat(file.fileno()).st_size
            if magic != _MAGIC or length != actual or place + count * _ROW.itemsize != actual:
                raise ValueError("the header does not fit the file")
            file.seek(place)
            index = file.read()
        if hashlib.sha256(index).digest() != index_hash:
            raise ValueError("the index is damaged")
        rows = np.frombuffer(index, dtype=_ROW)
        self._offsets = rows["offset"].astype(np.int64)
        self._heights = rows["height"].astype(np.int64)
        self._widths = rows["width"].astype(np.int64)
        self._crcs = rows["crc"].astype(np.int64)
        self._rows = {row.tobytes(): number for number, row in enumerate(rows["sha"])}
        self._data: Pixels = np.memmap(self.path, dtype=np.uint8, mode="r")
        self.size = actual  # bytes
        self._checked = bytearray(len(rows))
        self._gone = False

    def row(self, content: bytes) -> int:
        """The number of an image by its content's sha256; -1 when the store does not have it."""
        return self._rows.get(content, -1)

    def pixels(self, row: int) -> Pixels | None:
        """One image (H, W, 3), read-only and without a copy; None when the stored bytes are damaged."""
        if self._gone:
            return None
        start, height, width = int(self._offsets[row]), int(self._heights[row]), int(self._widths[row])
        flat = self._data[start : start + height * width * 3]
        if not self._checked[row]:
            if zlib.crc32(flat.data) != self._crcs[row]:
                self._gone = True
                with contextlib.suppress(OSError):
                    self.path.unlink()
                return None
            self._checked[row] = 1
        return flat.reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file itself."""
        return {"path": self.path, "side": self.side, "interpolation": self.interpolation, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file, if it is still there."""
        self.path, self.side, self.interpolation = state["path"], state["side"], state["interpolation"]
        try:
            self._open()
        except (OSError, ValueError):  # removed meanwhile: images are decoded from their source
            self._rows = state["rows"]
            self._gone = True


class Writer:
    """Collects resized images into a temporary file; `finish` makes it a store under the name of its contents."""

    def __init__(self, folder: Path, side: int, interpolation: str, limit: int) -> None:
        self.side = side
        self.interpolation = interpolation
        self._limit = limit
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._rows: dict[bytes, tuple[int, int, int, int]] = {}
        self._end = _HEADER.size
        self.given_up: str = ""  # why there will be no store; empty while there will
        self._temporary = folder / f".{os.getpid()}-{id(self):x}.building.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._stack.enter_context(self._temporary.open("wb"))
            self._file.write(bytes(_HEADER.size))
        except OSError as error:
            self._give_up(f"the cache cannot be written ({error.strerror})")

    def add(self, content: bytes, pixels: Pixels) -> None:
        """Append one resized image (H, W, 3), once per content."""
        if self.given_up or content in self._rows or max(pixels.shape[:2]) > LONGEST * min(pixels.shape[:2]):
            return
        data = pixels.tobytes()
        if self._end + len(data) > self._limit:
            self._give_up(f"the images take more than {self._limit / GiB:.1f} GiB")
            return
        if len(self._rows) % 256 == 0 and shutil.disk_usage(self._folder).free < RESERVE + len(data):
            self._give_up("the disk is nearly full")
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(f"the cache cannot be written ({error.strerror})")
            return
        self._rows[content] = (self._end, pixels.shape[0], pixels.shape[1], zlib.crc32(data))
        self._end += len(data)

    def finish(self, path: Path) -> bool:
        """Write the index and the header and move the file into place; whether there is a store now."""
        if self.given_up or not self._rows:
            self.discard()
            return False
        index = np.zeros(len(self._rows), dtype=_ROW)
        index["sha"] = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(-1, 32)
        for column, name in enumerate(("offset", "height", "width", "crc")):
            index[name] = [row[column] for row in self._rows.values()]
        packed = index.tobytes()
        try:
            self._file.write(packed)
            self._file.seek(0)
            length = self._end + len(packed)
            self._file.write(_HEADER.pack(_MAGIC, len(index), self._end, length, hashlib.sha256(packed).digest()))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._stack.close()
            self._temporary.replace(path)
        except OSError as error:
            self._give_up(f"the cache cannot be written ({error.strerror})")
            return False
        return True

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        with contextlib.suppress(OSError):  # on a full disk closing fails too, for it writes what is buffered
            self._stack.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _give_up(self, why: str) -> None:
        self.given_up = why
        self.discard()


def open_store(path: Path, side: int, interpolation: str) -> Store | None:
    """Open a store and mark it as used; a damaged one is removed. None when there is none."""
    try:
        store = Store(path, side, interpolation)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return store


def trim_stores(limit: int, keep: Collection[Path]) -> None:
    """Remove the stores used longest ago until all together take at most `limit` bytes."""
    caches.trim(cache_dir() / "stores", ".store", limit, keep=keep)
