"""Host memory: allocator settings, what is free, and the error when it runs out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from zoo.errors import TrainingError

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**30  # bytes of a block; larger ones are mapped every time
_NEVER = -1  # free memory at the end of the heap stays
THEIRS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next step instead of returning them to the system.

    By default every large tensor is mapped again, and the system clears each page at first use: on the CPU that took up
    to half of a training step. The process's memory stays at its peak instead. Returns False if the C library is
    another one, or the environment configures the allocator already.
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in THEIRS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def explained_memory(batch_size: int, image_size: int) -> Iterator[None]:
    """Raise TrainingError, which says what to change, if memory runs out; `image_size` is a side in pixels."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory with batches of {batch_size} images of {image_size} x {image_size} pixels",
            why=str(error).partition("\n")[0],
            fix=f"try --batch-size {max(1, batch_size // 2)} --accumulate 2, or a smaller --image-size",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory; on the CPU torch has no class of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # From an allocation, and from mapping a file.
    texts = ("can't allocate memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


_UNKNOWN = 4 * 2**30  # bytes assumed to be free if the system does not say


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be allocated before the system swaps or kills; `root` contains `proc` and `sys`.

    The limits of control groups count too (containers, batch systems); file cache that the system can drop does not.
    """
    system = [kibibytes * 1024 for name, kibibytes in _table(root / "proc/meminfo") if name == "MemAvailable:"]
    limits = [*system, *_groups(root)]
    if not limits and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    return max(0, min(limits, default=_UNKNOWN))


def _groups(root: Path) -> Iterator[int]:
    """What is left of each limit of this process's control group and its parents."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            second = controllers == ""
            if not second and "memory" not in controllers.split(","):
                continue
            base = root / ("sys/fs/cgroup" if second else "sys/fs/cgroup/memory")
            old = "memory.limit_in_bytes", "memory.usage_in_bytes"
            limit, used = ("memory.max", "memory.current") if second else old
            inside = Path(path.lstrip("/"))
            # Inside a container the path may be the host's, and the mounted root is the container's own group.
            for folder in (base / inside, *(base / parent for parent in inside.parents), base):
                with contextlib.suppress(OSError, ValueError):  # "max": no limit
                    cache = dict(_table(folder / "memory.stat")).get("inactive_file", 0)
                    yield int((folder / limit).read_text()) - int((folder / used).read_text()) + cache


def _table(path: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) > 1 and words[1].isdigit():
                yield words[0], int(words[1])
