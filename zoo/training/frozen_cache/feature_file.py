"""Files of cached features: one row of bytes per image, in memory or memory-mapped and shared by runs.

A row file (`zoo.base.row_file`): the description is JSON, the index the crc32 of all rows, then a byte per image:
whether it is present. Everything is checked when a file is opened; a damaged one is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.base import cache
from zoo.base.cache import ACTIVATION_ROWS, ACTIVATIONS
from zoo.base.row_file import RowHeader, RowWriter, open_or_remove
from zoo.data.store.store import RESERVE

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}

Rows = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class NoSpace(Exception):
    """Features cannot be cached; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one image's features."""

    shape: tuple[int, ...]
    dtype: str  # "float32" | "float16" | "bfloat16"
    channels_last: bool  # (C, H, W) that is (H, W, C) in memory

    @classmethod
    def of(cls, features: torch.Tensor) -> Layout:
        """The layout of a batch (B, ...)."""
        last = features.ndim == 4 and not features.is_contiguous()
        last = last and features.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(features.shape[1:]), str(features.dtype).removeprefix("torch."), last)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The features' dtype."""
        return _DTYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's features."""
        return int(np.prod(self.shape)) * _DTYPES[self.dtype].itemsize

    def pack(self, features: torch.Tensor) -> Rows:
        """A batch (B, ...) as rows (B, bytes); raises ValueError if it has another layout."""
        if (tuple(features.shape[1:]), str(features.dtype)) != (self.shape, f"torch.{self.dtype}"):
            raise ValueError(f"features of {tuple(features.shape)}, not of {self.shape}")
        plain = features.permute(0, 2, 3, 1) if self.channels_last else features
        rows: Rows = plain.cpu().contiguous().reshape(len(features), -1).view(torch.uint8).numpy()
        return rows

    def unpack(self, rows: Rows) -> torch.Tensor:
        """Rows (B, bytes) as a batch (B, ...), in the memory format in which it was computed."""
        order = (self.shape[1], self.shape[2], self.shape[0]) if self.channels_last else self.shape
        batch = torch.from_numpy(rows).view(_DTYPES[self.dtype]).view(len(rows), *order)
        return batch.permute(0, 3, 1, 2) if self.channels_last else batch


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """The cached features of one view of every image of a part."""

    rows: Rows  # (N, bytes), in memory or mapped
    present: npt.NDArray[np.bool_]  # (N,); False: the image could not be read
    layout: Layout


def gather(views: Sequence[CachedFeatures], which: Indices, positions: Indices) -> torch.Tensor:
    """A batch (B, ...) of the features of the images at `positions`, each in the view that `which` says."""
    first = int(which[0])
    if (which == first).all():
        return views[first].layout.unpack(np.take(views[first].rows, positions, axis=0))
    rows = np.empty((len(positions), views[first].layout.row_bytes), dtype=np.uint8)
    for number in np.unique(which):
        in_view = which == number
        rows[in_view] = np.take(views[number].rows, positions[in_view], axis=0)
    return views[first].layout.unpack(rows)


def path_of(folder: Path, *facts: object) -> Path:
    """The file of features that depend on these facts alone."""
    text = "\0".join(map(str, facts))
    return folder / f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}{ACTIVATIONS}"


def is_cached(path: Path, count: int, layout: Layout) -> bool:
    """Whether there is a file of the right length with a header that fits; opening it checks the content."""
    try:
        with path.open("rb") as file:
            _fitting(file, count, layout)
    except (OSError, ValueError):
        return False
    return True


def _fitting(file: IO[bytes], count: int, layout: Layout) -> RowHeader:
    header = ACTIVATION_ROWS.header(file)
    if header.place != header.start + count * layout.row_bytes or header.size != header.place + 4 + count:
        raise ValueError("its length is wrong")
    return header


def open_cached(path: Path, count: int, layout: Layout, *, in_memory: bool) -> CachedFeatures | None:
    """Open and check features and mark them as used; None if they do not exist or are damaged."""

    def opened(path: Path) -> CachedFeatures:
        with path.open("rb") as file:
            header = _fitting(file, count, layout)
            index = ACTIVATION_ROWS.index(file, header)
        size = count * layout.row_bytes
        rows: Rows = (
            np.fromfile(path, dtype=np.uint8, count=size, offset=header.start)
            if in_memory
            else np.memmap(path, dtype=np.uint8, mode="r", offset=header.start, shape=(size,))
        )
        if len(rows) != size or zlib.crc32(rows.data) != int.from_bytes(index[:4], "little"):
            raise ValueError("the rows are damaged")
        with contextlib.suppress(OSError):
            os.utime(path)
        return CachedFeatures(rows.reshape(count, layout.row_bytes), np.frombuffer(index[4:], dtype=np.bool_), layout)

    return open_or_remove(path, opened)


def write_cached(
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
) -> CachedFeatures:
    """Cache features while they are computed.

    Args:
        batches: Positions, ascending over all batches, and their features.
        path: The file. If it cannot be written, the rows stay in memory only.
        count: Images.
        layout: The layout of a row.
        in_memory: Hold the rows in memory; else they are mapped from the file.
        limit: Bytes that all such files together may take.
        others: Files that must not be removed to make space.
        about: Plain values that tell a user what the file is for.
        note: Called with the reason if the rows are in memory only.

    Raises:
        NoSpace: They fit neither into memory nor on the disk.
    """
    present = np.zeros(count, dtype=np.bool_)
    rows: Rows | None = np.zeros((count, layout.row_bytes), dtype=np.uint8) if in_memory else None

    def blocks() -> Iterator[Rows]:
        done = 0
        for positions, features in batches:
            upto = positions[-1] + 1
            block = np.zeros((upto - done, layout.row_bytes), dtype=np.uint8) if rows is None else rows[done:upto]
            block[[position - done for position in positions]] = layout.pack(features)
            present[list(positions)] = True
            yield block
            done = upto
        yield np.zeros((count - done, layout.row_bytes), dtype=np.uint8)

    why = _no_space(path, count * layout.row_bytes, limit, others)
    if rows is not None:
        for _ in blocks():  # which fills the rows
            pass
    try:
        if not why:
            _write(path, blocks() if rows is None else [rows], present, about, layout)
    except OSError as error:
        why = error.strerror or str(error)
    if rows is not None:
        if why:
            note(f"features are cached in memory only: {why}")
        return CachedFeatures(rows, present, layout)
    if why:
        raise NoSpace(why)
    features = open_cached(path, count, layout, in_memory=False)
    if features is None:  # another process removed it, or the disk is faulty
        raise NoSpace(f"{path} cannot be read back")
    return features


def _no_space(path: Path, size: int, limit: int, others: Collection[Path]) -> str:
    """Why there is no disk space for a file of this size, else empty; old files are removed if needed."""
    if size > limit:
        return f"{size / 1e9:.1f} GB are more than --cache-gb allows"
    cache.trim(path.parent, ACTIVATIONS, limit - size, keep=others)
    try:
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free
    except OSError as error:
        return error.strerror or str(error)
    return "the disk is nearly full" if free < size + RESERVE else ""


def _write(
    path: Path, blocks: Iterable[Rows], present: npt.NDArray[np.bool_], about: dict[str, Any], layout: Layout
) -> None:
    facts = {**about, "shape": layout.shape, "dtype": layout.dtype, "created": int(time.time())}
    crc = 0
    with contextlib.closing(RowWriter(ACTIVATION_ROWS, path.parent, json.dumps(facts).encode())) as writer:
        for block in blocks:
            if block.size:  # an empty view cannot be cast
                data = np.ascontiguousarray(block).data.cast("B")
                crc = zlib.crc32(data, crc)
                writer.append(data)
        writer.finish(path, crc.to_bytes(4, "little") + present.tobytes(), len(present), sync=True)
