from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from zoo.training import memory

# Fills and frees blocks of so many MiB again and again, and prints how many pages the system had to bring at last.
ALLOCATE = """
import resource, sys
from zoo.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(2**20 * int(size)) for size in sys.argv[2:]]
    del blocks
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")


def allocate(mode: str, *sizes: int, **environment: str) -> tuple[str, int]:
    inherited = {name: value for name, value in os.environ.items() if name not in memory.THEIRS}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE, mode, *map(str, sizes or [64])],
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_a_block_as_large_as_the_last_one_needs_no_new_pages() -> None:
    _, before = allocate("as it is")
    kept, after = allocate("keep")
    assert kept == "True"
    assert after < 100 < before


def test_neither_do_blocks_that_are_large_only_together() -> None:
    """Such as the gradients of a VGG, which are freed all at once."""
    assert allocate("keep", *[300] * 4)[1] < 100


def test_what_the_environment_says_stands() -> None:
    assert allocate("keep", MALLOC_TOP_PAD_="131072")[0] == "False"
