"""Kept activations: one row of bytes per image, in memory or in a memory-mapped file that another run can use too.

File: a header (magic, length of the description, place of the index, sha256 of description and index), the description
(JSON), the rows one after the other, the index (crc32 of all rows, then a byte per image: whether it is there). The
header is written last and the file renamed into place, so that a file cut short at any moment is not taken for whole.
Everything is checked when a file is opened; a damaged one is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.base import cache
from zoo.base.cache import ACTIVATIONS
from zoo.data.store.store import RESERVE

_MAGIC = b"ZOOACTS1"
_HEADER = struct.Struct("<8sQQ32s")
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}

Rows = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class NoRoom(Exception):
    """Activations cannot be kept; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What one image's activations look like."""

    shape: tuple[int, ...]
    dtype: str  # "float32" | "float16" | "bfloat16"
    channels_last: bool  # (C, H, W) that lie in memory as (H, W, C)

    @classmethod
    def of(cls, activations: torch.Tensor) -> Layout:
        """The layout of a batch (B, …)."""
        last = activations.ndim == 4 and not activations.is_contiguous()
        last = last and activations.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(activations.shape[1:]), str(activations.dtype).removeprefix("torch."), last)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return _DTYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's activations."""
        return int(np.prod(self.shape)) * _DTYPES[self.dtype].itemsize

    def pack(self, activations: torch.Tensor) -> Rows:
        """A batch (B, …) as rows (B, bytes).

        Raises:
            ValueError: It has another layout.
        """
        if (tuple(activations.shape[1:]), str(activations.dtype)) != (self.shape, f"torch.{self.dtype}"):
            raise ValueError(f"activations of {tuple(activations.shape)}, not of {self.shape}")
        plain = activations.permute(0, 2, 3, 1) if self.channels_last else activations
        flat: Rows = plain.cpu().contiguous().reshape(len(activations), -1).view(torch.uint8).numpy()
        return flat

    def unpack(self, rows: Rows) -> torch.Tensor:
        """Rows (B, bytes) as a batch (B, …), in memory as it was computed."""
        order = (self.shape[1], self.shape[2], self.shape[0]) if self.channels_last else self.shape
        batch = torch.from_numpy(rows).view(_DTYPES[self.dtype]).view(len(rows), *order)
        return batch.permute(0, 3, 1, 2) if self.channels_last else batch


@dataclass(frozen=True, slots=True)
class Kept:
    """The activations of one view of every image of a part."""

    rows: Rows  # (N, bytes), in memory or mapped
    present: npt.NDArray[np.bool_]  # (N,); False: the image could not be read
    layout: Layout


def gather(views: Sequence[Kept], which: Indices, positions: Indices) -> torch.Tensor:
    """A batch (B, …) of the activations of the images at `positions`, each in the view that `which` says."""
    first = int(which[0])
    if (which == first).all():
        return views[first].layout.unpack(np.take(views[first].rows, positions, axis=0))
    rows = np.empty((len(positions), views[first].layout.row_bytes), dtype=np.uint8)
    for number in np.unique(which):
        mine = which == number
        rows[mine] = np.take(views[number].rows, positions[mine], axis=0)
    return views[first].layout.unpack(rows)


def path_of(folder: Path, *facts: object) -> Path:
    """Where activations are kept that are a function of these facts alone."""
    text = "\0".join(map(str, facts))
    return folder / f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}{ACTIVATIONS}"


def is_kept(path: Path, count: int, layout: Layout) -> bool:
    """Whether there is a file of the right length with a header that fits; opening it checks what is in it."""
    try:
        with path.open("rb") as file:
            magic, length, place, _ = _HEADER.unpack(file.read(_HEADER.size))
            size = os.fstat(file.fileno()).st_size
    except (OSError, struct.error):
        return False
    start = _HEADER.size + length
    return bool(magic == _MAGIC and place == start + count * layout.row_bytes and size == place + 4 + count)


def open_kept(path: Path, count: int, layout: Layout, *, in_memory: bool) -> Kept | None:
    """Open what was kept, check all of it, and mark it as used; None if it is not there or damaged.

    Args:
        path: The file.
        count: Images it must have.
        layout: What it must hold.
        in_memory: Read it, instead of mapping it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            magic, length, place, digest = _HEADER.unpack(header)
            description = file.read(length)
            start = file.tell()
            size = count * layout.row_bytes
            file.seek(place)
            index = file.read()
        whole = magic == _MAGIC and hashlib.sha256(description + index).digest() == digest
        if not whole or place != start + size or len(index) != 4 + count:
            raise ValueError("damaged, or not what it should be")
        rows: Rows = (
            np.fromfile(path, dtype=np.uint8, count=size, offset=start)
            if in_memory
            else np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=(size,))
        )
        if len(rows) != size or zlib.crc32(rows.data) != int.from_bytes(index[:4], "little"):
            raise ValueError("the rows are damaged")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return Kept(rows.reshape(count, layout.row_bytes), np.frombuffer(index[4:], dtype=np.bool_), layout)


def keep(
    batches: Iterable[tuple[Sequence[int], torch.Tensor]],
    path: Path,
    count: int,
    layout: Layout,
    *,
    in_memory: bool,
    limit: int,
    others: Collection[Path],
    about: dict[str, Any],
    note: Callable[[str], None],
) -> Kept:
    """Take activations from where they are computed, and keep them.

    Args:
        batches: Positions, ascending over all batches, and their activations.
        path: The file. What cannot be written stays in memory, if it may.
        count: Images.
        layout: What is kept.
        in_memory: Hold the rows in memory; else they are mapped from the file.
        limit: Bytes that all such files together may take.
        others: Files that are not to be removed for it.
        about: Plain values that tell a person what the file is for.
        note: Told why there is no file, where the rows are in memory.

    Raises:
        NoRoom: They fit neither into memory nor on the disk.
    """
    size = count * layout.row_bytes
    present = np.zeros(count, dtype=np.bool_)
    why = _no_space(path, size, limit, others)
    if why and not in_memory:
        raise NoRoom(why)
    if in_memory:
        rows: Rows = np.zeros((count, layout.row_bytes), dtype=np.uint8)
        for positions, activations in batches:
            rows[list(positions)] = layout.pack(activations)
            present[list(positions)] = True
        if not why:
            try:
                with _writing(path, about, layout) as writer:
                    writer.append(rows)
                    writer.finish(present)
            except OSError as error:
                why = error.strerror or str(error)
        if why:
            note(f"activations are kept in memory alone: {why}")
        return Kept(rows, present, layout)
    try:
        with _writing(path, about, layout) as writer:
            done = 0
            for positions, activations in batches:
                block = np.zeros((positions[-1] + 1 - done, layout.row_bytes), dtype=np.uint8)
                block[[position - done for position in positions]] = layout.pack(activations)
                present[list(positions)] = True
                writer.append(block)
                done += len(block)
            writer.append(np.zeros((count - done, layout.row_bytes), dtype=np.uint8))
            writer.finish(present)
    except OSError as error:
        raise NoRoom(error.strerror or str(error)) from error
    kept = open_kept(path, count, layout, in_memory=False)
    if kept is None:  # another process removed it, or the disk lies
        raise NoRoom(f"{path} cannot be read back")
    return kept


def _no_space(path: Path, size: int, limit: int, others: Collection[Path]) -> str:
    """Why there is no room for a file of this size; empty where there is, old files removed if need be."""
    if size > limit:
        return f"{size / 1e9:.1f} GB are more than --cache-gb allows"
    cache.trim(path.parent, ACTIVATIONS, limit - size, keep=others)
    there = next(folder for folder in path.parents if folder.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return error.strerror or str(error)
    return "the disk is nearly full" if free < size + RESERVE else ""


class _Writer:
    def __init__(self, file: Any, description: bytes) -> None:
        self._file = file
        self._description = description
        self._crc = 0
        file.write(bytes(_HEADER.size))
        file.write(description)

    def append(self, rows: Rows) -> None:
        if not rows.size:  # an empty view cannot be cast
            return
        data = np.ascontiguousarray(rows).data.cast("B")
        self._crc = zlib.crc32(data, self._crc)
        self._file.write(data)

    def finish(self, present: npt.NDArray[np.bool_]) -> None:
        place = self._file.tell()
        index = self._crc.to_bytes(4, "little") + present.tobytes()
        self._file.write(index)
        self._file.seek(0)
        digest = hashlib.sha256(self._description + index).digest()
        self._file.write(_HEADER.pack(_MAGIC, len(self._description), place, digest))


@contextlib.contextmanager
def _writing(path: Path, about: dict[str, Any], layout: Layout) -> Iterator[_Writer]:
    """A writer to a temporary file, which takes its place when the block succeeds."""
    facts = {**about, "shape": layout.shape, "dtype": layout.dtype, "created": int(time.time())}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}.tmp")
    try:
        with temporary.open("wb") as file:
            yield _Writer(file, json.dumps(facts).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
