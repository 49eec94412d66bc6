"""Segment: one memory-mapped file of decoded images, with an index.

A row file (`zoo.base.row_file`): the rows are pixels, (H, W, 3) uint8, one image after the other; the index has each
one's content hash, offset, height, width and crc32. Height 0: this image is too long to be stored. The crc is checked
when a process first reads an image; a damaged file is removed, and its images are decoded from their source instead.

Nothing waits for the disk: the header, the index's hash or a crc shows what a power cut has torn.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.base.cache import IMAGE_ROWS, IMAGES
from zoo.base.row_file import RowWriter

Pixels = npt.NDArray[np.uint8]

_ROW = np.dtype([("sha", "u1", (32,)), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])


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
