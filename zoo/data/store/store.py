"""Decoded store: images resized once, as raw bytes mapped into memory.

An image is resized as timm's evaluation transform does (short side to `side`, same interpolation, same code), so that a
centre crop of the stored image equals, pixel for pixel, what that transform makes of the original.

An image is identified by the hash of its encoded bytes, so data sets, cuts and recipes share it. It lies in one of
several segments, whose names begin with their family: a hash of side, interpolation, and versions of what decodes and
resizes. A full segment is closed: a killed run loses only the last one. All stores together stay below a limit; the
least recently used go first, and an image that does not fit is decoded in each epoch.

A segment is a row file (`zoo.base.row_file`): the rows are pixels, (H, W, 3) uint8, one image after the other; the
index has each one's content hash, offset, height, width and crc32. Height 0: this image is too long to be stored. The
crc is checked when a process first reads an image; a damaged file is removed, and its images are decoded from their
source instead. Nothing waits for the disk: the header, the index's hash or a crc shows what a power cut has torn.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base import cache
from zoo.base.cache import IMAGE_ROWS, IMAGES
from zoo.base.files import cache_dir
from zoo.base.row_file import RowWriter, open_or_remove
from zoo.data.store.decode import Pixels, decoding
from zoo.data.types import GiB

RESERVE = 2 * GiB  # free disk space that a store never takes
SEGMENT = 256 << 20  # bytes after which a segment is closed: about a thousand images of 256 pixels
_ROW = np.dtype([("sha", "u1", (32,)), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])


def folder() -> Path:
    """Where the files are."""
    return cache_dir() / "stores"


class Segment:
    """One finished file, open for reading. Raises OSError if it cannot be read, ValueError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        with self.path.open("rb") as file:
            header = IMAGE_ROWS.header(file)
            if header.place + header.number * _ROW.itemsize != header.size:
                raise ValueError("the index does not fit the file")
            rows = np.frombuffer(IMAGE_ROWS.index(file, header), dtype=_ROW)
        self._contents = rows["sha"].tobytes()
        self._shapes = [rows[name].astype(np.int64) for name in ("offset", "height", "width", "crc")]
        self._data: Pixels = np.memmap(self.path, dtype=np.uint8, mode="r")
        self.size = header.size  # bytes
        self._checked = bytearray(header.number)
        self._gone = False

    @property
    def contents(self) -> list[bytes]:
        """The sha256 of every image's encoded bytes, in the rows' order."""
        return [self._contents[start : start + 32] for start in range(0, len(self._contents), 32)]

    def pixels(self, row: int) -> Pixels | None:
        """One image (H, W, 3), read-only and without a copy; None if it is not stored or damaged."""
        if self._gone:
            return None
        start, height, width, crc = (int(column[row]) for column in self._shapes)
        if not height:
            return None
        flat = self._data[start : start + height * width * 3]
        if not self._checked[row]:
            if zlib.crc32(flat.data) != crc:
                self._gone = True
                with contextlib.suppress(OSError):
                    self.path.unlink()
                return None
            self._checked[row] = 1
        return flat.reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file itself."""
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file, if it is still there."""
        self.path = state["path"]
        try:
            self._open()
        except (OSError, ValueError):  # removed in the meantime: images are decoded from their source
            self.size, self._contents, self._gone = 0, b"", True


class Store:
    """Decoded images of one side and interpolation, in all segments that have some of those looked for."""

    def __init__(self, side: int, interpolation: str) -> None:
        self.side = side
        self.interpolation = interpolation
        text = "\n".join(map(str, (*decoding(), side, interpolation)))
        self.family = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._segments: list[Segment] = []
        self._rows: dict[bytes, int] = {}  # content -> number among the rows of all segments
        self._places: list[tuple[int, int]] = []  # of each number: segment, row in it

    @property
    def size(self) -> int:
        """Bytes of all segments in use."""
        return sum(segment.size for segment in self._segments)

    @property
    def paths(self) -> list[Path]:
        """The files in use."""
        return [segment.path for segment in self._segments]

    def find(self, contents: Collection[bytes]) -> None:
        """Look for images on disk by content, and mark the files that have them as used."""
        wanted = {content for content in contents if content not in self._rows}
        known = set(self.paths)
        if not wanted or not folder().is_dir():
            return
        for path in sorted(folder().glob(f"{self.family}-*{IMAGES}")):
            segment = None if path in known else open_or_remove(path, Segment)
            if segment is not None and self.adopt(segment, wanted):
                with contextlib.suppress(OSError):
                    os.utime(path)

    def adopt(self, segment: Segment, wanted: Collection[bytes]) -> bool:
        """Add the wanted images of a segment that are new; whether there are any."""
        number, before = len(self._segments), len(self._places)
        for row, content in enumerate(segment.contents):
            if content in wanted and content not in self._rows:
                self._rows[content] = len(self._places)
                self._places.append((number, row))
        if len(self._places) == before:
            return False
        self._segments.append(segment)
        return True

    def row(self, content: bytes) -> int:
        """The row of an image by its content's sha256; -1: not in the store."""
        return self._rows.get(content, -1)

    def pixels(self, row: int) -> Pixels | None:
        """One image (H, W, 3), read-only and without a copy; None if it must be decoded from its source."""
        segment, place = self._places[row]
        return self._segments[segment].pixels(place)

    def __getstate__(self) -> dict[str, Any]:
        """Other processes do not look images up by content."""
        return {**self.__dict__, "_rows": {}}


class Writer(RowWriter):
    """Writes one segment. Raises OSError if the file cannot be written; so do `add` and `put_away`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(IMAGE_ROWS, folder)
        self.rows: dict[bytes, tuple[int, int, int, int]] = {}  # content -> offset, height, width, crc

    def add(self, content: bytes, pixels: Pixels | None) -> None:
        """Append one image (H, W, 3); None: one that is too long to be stored."""
        if pixels is None:
            self.rows[content] = (0, 0, 0, 0)
            return
        data = np.ascontiguousarray(pixels).reshape(-1).data
        self.rows[content] = (self.size, pixels.shape[0], pixels.shape[1], zlib.crc32(data))
        self.append(data)

    def put_away(self, folder: Path, family: str) -> Path:
        """Move the file to its final name: family and hash of the index."""
        index = np.zeros(len(self.rows), dtype=_ROW)
        index["sha"] = np.frombuffer(b"".join(self.rows), dtype=np.uint8).reshape(-1, 32)
        for column, name in enumerate(("offset", "height", "width", "crc")):
            index[name] = [row[column] for row in self.rows.values()]
        packed = index.tobytes()
        path = folder / f"{family}-{hashlib.sha256(packed).hexdigest()[:24]}{IMAGES}"
        self.finish(path, packed, len(index), sync=False)
        return path


class Builder:
    """Adds images to a store, segment by segment; `limit`: bytes that all stores together may take."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._writer: Writer | None = None
        self.given_up = ""  # why no more images are stored; empty while they are
        smallest = 3 * store.side**2
        if store.size + smallest > limit or store.size > 0.99 * limit:
            self._is_full()

    def add(self, content: bytes, pixels: Pixels | None) -> None:
        """Append one resized image (H, W, 3), once per content; None: one that is too long to be stored."""
        if self.given_up or self._store.row(content) >= 0 or (self._writer and content in self._writer.rows):
            return
        try:
            self._writer = self._writer or Writer(folder())
            if not self._has_room(0 if pixels is None else pixels.nbytes):
                self.close()
                return
            self._writer.add(content, pixels)
            if self._writer.size >= SEGMENT:
                self.close()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Finish the segment that is being written, and add it to the store."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if writer.rows:
                cache.trim(folder(), IMAGES, self._limit - writer.size, keep=self._store.paths)
                segment = open_or_remove(writer.put_away(folder(), self._store.family), Segment)
                if segment is not None:
                    self._store.adopt(segment, set(segment.contents))
        except OSError as error:
            self._fail(error)
        finally:
            writer.close()

    def _has_room(self, more: int) -> bool:
        assert self._writer is not None
        if self._store.size + self._writer.size + more > self._limit:
            self._is_full()
        elif len(self._writer.rows) % 256 == 0 and shutil.disk_usage(folder()).free < RESERVE + more:
            self.given_up = "the disk is nearly full"
        return not self.given_up

    def _is_full(self) -> None:
        self.given_up = f"the images take more than {self._limit / GiB:.1f} GiB"

    def _fail(self, error: OSError) -> None:
        self.given_up = f"the cache cannot be written ({error.strerror or error})"
        if self._writer is not None:
            self._writer.close()
            self._writer = None
