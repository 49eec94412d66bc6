"""Row files: rows of bytes that are mapped into memory, and an index of them.

File: a header, a description (in formats that have one), the rows one after the other, the index. Header: magic, length
of the description or else number of rows, place of the index, length of the file where there is no description, sha256
of description and index. It is written last and the file renamed into place, so that a file cut short at any moment is
not taken for whole. Whoever reads the rows checks them by the index.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

T = TypeVar("T")


class RowHeader(NamedTuple):
    """What the header of a whole file says."""

    number: int  # bytes of the description, or rows
    start: int  # of the rows
    place: int  # of the index
    size: int  # bytes of the file
    digest: bytes


class RowFormat:
    """One kind of row file, known by its magic (8 bytes)."""

    def __init__(self, magic: bytes, *, described: bool) -> None:
        self._magic, self._described = magic, described
        self._header = struct.Struct("<8sQQ32s" if described else "<8sQQQ32s")
        self.size = self._header.size  # bytes of the header

    def header(self, file: IO[bytes]) -> RowHeader:
        """Read a file's beginning; a ValueError: it is not one of a whole file."""
        data, size = file.read(self.size), os.fstat(file.fileno()).st_size
        if len(data) != self.size:
            raise ValueError("no header")
        magic, number, place, *length, digest = self._header.unpack(data)
        start = self.size + (number if self._described else 0)
        if magic != self._magic or not start <= place <= size or length not in ([], [size]):
            raise ValueError("the header does not fit the file")
        return RowHeader(number, start, place, size, digest)

    def index(self, file: IO[bytes], header: RowHeader) -> bytes:
        """Read on behind the header; a ValueError: the index is damaged, or the description."""
        description = file.read(header.start - self.size)
        file.seek(header.place)
        index = file.read()
        if hashlib.sha256(description + index).digest() != header.digest:
            raise ValueError("the index is damaged")
        return index

    def pack(self, description: bytes, rows: int, place: int, index: bytes) -> bytes:
        """The header of a finished file."""
        numbers = (len(description), place) if self._described else (rows, place, place + len(index))
        return self._header.pack(self._magic, *numbers, hashlib.sha256(description + index).digest())


class RowWriter:
    """Writes a row file under a temporary name; `finish` puts it into place. All of it may raise OSError."""

    def __init__(self, form: RowFormat, folder: Path, description: bytes = b"") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._form, self._description = form, description
        self._temporary = folder / f".{os.getpid()}-{secrets.token_hex(6)}.building.tmp"
        self._file = self._temporary.open("wb")
        self.size = self._file.write(bytes(form.size) + description)  # bytes so far

    def append(self, rows: bytes | memoryview) -> None:
        """Write one or several rows."""
        self.size += self._file.write(rows)

    def finish(self, path: Path, index: bytes, rows: int, *, sync: bool) -> None:
        """Write index and header, wait for the disk if asked to, and move the file to its name.

        Two processes that made the same file end with one, whichever is later.
        """
        header = self._form.pack(self._description, rows, self.size, index)
        self.append(index)
        self._file.seek(0)
        self._file.write(header)
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(path)

    def close(self) -> None:
        """Remove the temporary file, if it is still there."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def open_or_remove(path: Path, opened: Callable[[Path], T]) -> T | None:
    """Open a file; None if there is none, or if it is damaged (a ValueError): then it is removed."""
    try:
        return opened(path)
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            with contextlib.suppress(OSError):
                path.unlink()
        return None
