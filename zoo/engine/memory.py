"""Keep freed memory: training frees and asks again for the same large blocks, step after step."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT = 2**30  # bytes
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
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
