"""Decoded store: images resized once, as raw bytes mapped into memory.

An image is resized as timm's evaluation transform does (short side to `side`, same interpolation, same code), so that a
centre crop of the stored image equals, pixel for pixel, what that transform makes of the original.

An image is identified by the hash of its encoded bytes, so data sets, cuts and recipes share it. It lies in one of
several segments (`zoo.data.store.segment`), whose names begin with their family: a hash of side, interpolation, and
versions of what decodes and resizes. A full segment is closed: a killed run loses only the last one. All stores
together stay below a limit; the least recently used go first, and an image that does not fit is decoded in each epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import PIL
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import functional

from zoo.base import cache
from zoo.base.files import cache_dir
from zoo.base.row_file import open_or_remove
from zoo.data.store import decode
from zoo.data.store.segment import Pixels, Segment, Writer
from zoo.data.types import GiB

RESERVE = 2 * GiB  # free disk space that a store never takes
LONGEST = 16  # an image more than this many times as long as wide is not stored, but read from its source
SEGMENT = 256 << 20  # bytes after which a segment is closed: about a thousand images of 256 pixels


def resized(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """Resize an RGB image so that its short side is `side` pixels, as timm's evaluation transform does."""
    result: Image.Image = functional.resize(image, side, interpolation=str_to_interp_mode(interpolation))
    return result


def too_long(image: Image.Image) -> bool:
    """Whether an image is too long to be stored: resized by its short side, it could fill the memory."""
    return max(image.size) > LONGEST * min(image.size)


def decoding() -> tuple[object, ...]:
    """Versions of what decodes and resizes: the same versions give the same pixels."""
    return decode.VERSION, PIL.__version__


def folder() -> Path:
    """Where the files are."""
    return cache_dir() / "stores"


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
        for path in sorted(folder().glob(f"{self.family}-*{cache.IMAGES}")):
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
                cache.trim(folder(), cache.IMAGES, self._limit - writer.size, keep=self._store.paths)
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
