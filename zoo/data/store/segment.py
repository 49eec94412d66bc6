"""One file of decoded images: raw bytes that are mapped into memory, and an index of what they show.

File: a header (magic, number of images, place of the index, length of the file, sha256 of the index), the pixels as
(H, W, 3) uint8 one image after the other, the index (content hash, offset, height, width, crc32). A row of height 0
says that this image is too long to be kept. The crc of an image is checked when a process first reads it; a damaged
file is removed, and its images are decoded from their source instead.

Nothing waits for the disk: what a power cut tears is found out by the header, the index's hash, or an image's crc.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_MAGIC = b"ZOOSTOR2"
_HEADER = struct.Struct("<8sQQQ32s")
_ROW = np.dtype([("sha", "u1", (32,)), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])


class Segment:
    """One finished file, opened for reading.

    Raises:
        ValueError: The file is damaged or cut short.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        self._contents = rows["sha"].tobytes()
        self._shapes = [rows[name].astype(np.int64) for name in ("offset", "height", "width", "crc")]
        self._data: Pixels = np.memmap(self.path, dtype=np.uint8, mode="r")
        self.size = actual  # bytes
        self._checked = bytearray(count)
        self._gone = False

    @property
    def contents(self) -> list[bytes]:
        """The sha256 of every image's encoded bytes, in the rows' order."""
        return [self._contents[start : start + 32] for start in range(0, len(self._contents), 32)]

    def pixels(self, row: int) -> Pixels | None:
        """One image (H, W, 3), read-only and without a copy; None when it is not kept, or its bytes are damaged."""
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
        except (OSError, ValueError):  # removed meanwhile: images are decoded from their source
            self.size, self._contents, self._gone = 0, b"", True


def open_segment(path: Path) -> Segment | None:
    """Open a file of decoded images; a damaged one is removed. None when there is none."""
    try:
        return Segment(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error):
        with contextlib.suppress(OSError):
            path.unlink()
        return None


class Writer:
    """Writes one segment into a temporary file; `finish` puts it into place.

    Raises:
        OSError: The file cannot be written; so do `add` and `finish`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._temporary = folder / f".{os.getpid()}-{id(self):x}.building.tmp"
        self._file = self._temporary.open("wb")
        self._file.write(bytes(_HEADER.size))
        self._rows: dict[bytes, tuple[int, int, int, int]] = {}
        self.size = _HEADER.size  # bytes so far, the index not counted

    def __len__(self) -> int:
        """Images so far."""
        return len(self._rows)

    def __contains__(self, content: bytes) -> bool:
        """Whether an image of this content was added."""
        return content in self._rows

    def add(self, content: bytes, pixels: Pixels | None) -> None:
        """Append one image (H, W, 3); None: one that is too long to be kept."""
        if pixels is None:
            self._rows[content] = (0, 0, 0, 0)
            return
        data = np.ascontiguousarray(pixels).reshape(-1).data
        self._file.write(data)
        self._rows[content] = (self.size, pixels.shape[0], pixels.shape[1], zlib.crc32(data))
        self.size += len(data)

    def finish(self, family: str) -> Path:
        """Write index and header and move the file to its name: family and hash of what is in it.

        Two processes that made the same segment end with one file, whichever is later.
        """
        index = np.zeros(len(self._rows), dtype=_ROW)
        index["sha"] = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(-1, 32)
        for column, name in enumerate(("offset", "height", "width", "crc")):
            index[name] = [row[column] for row in self._rows.values()]
        packed = index.tobytes()
        digest = hashlib.sha256(packed)
        self._file.write(packed)
        self._file.seek(0)
        self._file.write(_HEADER.pack(_MAGIC, len(index), self.size, self.size + len(packed), digest.digest()))
        self._file.close()
        path = self._temporary.with_name(f"{family}-{digest.hexdigest()[:24]}.store")
        self._temporary.replace(path)
        return path

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
