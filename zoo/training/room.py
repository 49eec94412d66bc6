"""How much memory there is for tensors on the CPU: what the system has left, and what this process may take of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_UNKNOWN = 4 * 2**30  # bytes that are taken for free where nothing says


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be taken before the system swaps or kills.

    The limits of control groups count too (containers, batch systems); file cache that the system can drop does not.

    Args:
        root: Where `proc` and `sys` are.
    """
    found = [*_system(root / "proc/meminfo"), *_groups(root)]
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    return max(0, min(found, default=_UNKNOWN))


def _system(path: Path) -> Iterator[int]:
    for name, kibibytes in _table(path):
        if name == "MemAvailable:":
            yield kibibytes * 1024


def _groups(root: Path) -> Iterator[int]:
    """What is left of each limit, of this process's group and of those around it."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            second = controllers == ""
            if not second and "memory" not in controllers.split(","):
                continue
            base = root / ("sys/fs/cgroup" if second else "sys/fs/cgroup/memory")
            limit, used = (
                ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            )
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
