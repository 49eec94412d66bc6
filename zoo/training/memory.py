"""Memory: kept between steps, which ask for the same large blocks again and again; and what to do when it runs out."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zoo.errors import TrainingError

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**30  # bytes of a block; larger ones are mapped anew
_NEVER = -1  # whatever is free at the end of the heap, it stays
THEIRS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next step rather than to give them back to the system.

    By default every large tensor is mapped anew, and each of its pages is cleared by the system at first use: on the
    CPU that took up to half of a training step. The process's memory stays at its peak instead.

    Returns:
        Whether it is so now; False where the C library is another one, or the environment already says how memory is
        to be kept (`MALLOC_…`, `GLIBC_TUNABLES`, a preloaded allocator).
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in THEIRS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def explained_memory(batch_size: int, image_size: int) -> Iterator[None]:
    """Say what to change when memory runs out.

    Args:
        batch_size: Images of a batch.
        image_size: Their side, pixels.

    Raises:
        TrainingError: It ran out within the block.
    """
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
    """Whether an exception says that memory ran out; on the CPU torch has no class of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Of an allocation, and of a file that is to be mapped.
    texts = ("can't allocate memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
