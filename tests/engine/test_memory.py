from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from zoo.engine import memory

# Fills and frees 64 MiB again and again, and prints how many pages the system had to bring the last time.
ALLOCATE = """
import resource, sys
from zoo.engine.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**26)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")


def allocate(mode: str, **environment: str) -> tuple[str, int]:
    inherited = {name: value for name, value in os.environ.items() if name not in memory.THEIRS}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE, mode],
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


def test_what_the_environment_says_stands() -> None:
    assert allocate("keep", MALLOC_TOP_PAD_="131072")[0] == "False"
