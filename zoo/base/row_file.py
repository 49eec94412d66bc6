"""Row files: memory-mapped rows of bytes and their index.

File: header, description (in formats that have one), rows, index. Header: magic, length of the description or else
number of rows, offset of the index, length of the file if there is no description, sha256 of description and index.
The header is written last and the file renamed into place, so a truncated file is never taken for complete. Readers
check the rows by the index.
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
    """The header of a complete file."""

    number: int  # bytes of the description, or rows
    start: int  # offset of the rows
    place: int  # offset of the index
    size: int  # bytes of the file
    digest: bytes


class RowFormat:
    """One kind of row file, known by its magic (8 bytes)."""

    def __init__(self, magic: bytes, *, described: bool) -> None:
        self._magic, self._described = magic, described
        self._header = struct.Struct("<8sQQ32s" if described else "<8sQQQ32s")
        self.size = self._header.size  # bytes of the header

    def header(self, file: IO[bytes]) -> RowHeader:
        """Read a file's header; raises ValueError if the file is not complete or of another format."""
        data, size = file.read(self.size), os.fstat(file.fileno()).st_size
        if len(data) != self.size:
            raise ValueError("no header")
        magic, number, place, *length, digest = self._header.unpack(data)
        start = self.size + (number if self._described else 0)
        if magic != self._magic or not start <= place <= size or length not in ([], [size]):
            raise ValueError("the header does not fit the file")
        return RowHeader(number, start, place, size, digest)

    def index(self, file: IO[bytes], header: RowHeader) -> bytes:
        """Read the index, from behind the header; raises ValueError if it or the description is damaged."""
        description = file.read(header.start - self.size)
        file.seek(header.place)
        index = file.read()
        if hashlib.sha256(description + index).digest() != header.digest:
            raise ValueError("the index is damaged")
        return index

    def pack(self, description: bytes, rows: int, place: int, index: bytes) -> bytes:
        """The header's bytes."""
        numbers = (len(description), place) if self._described else (rows, place, place + len(index))
        return self._header.pack(self._magic, *numbers, hashlib.sha256(description + index).digest())


class RowWriter:
    """Writes a row file under a temporary name, which `finish` replaces. Every method but `close` may raise OSError."""

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
        """Write index and header, fsync if `sync`, and rename; of two processes with one path the later wins."""
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
        """Remove the temporary file, if it still exists."""
        for end in (self._file.close, self._temporary.unlink):
            with contextlib.suppress(OSError):
                end()


def open_or_remove(path: Path, opened: Callable[[Path], T]) -> T | None:
    """Open a file; None if it is missing, or unreadable or damaged (a ValueError), which removes it."""
    try:
        return opened(path)
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            with contextlib.suppress(OSError):
                path.unlink()
        return None
