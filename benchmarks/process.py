"""One run in a fresh process: how long it took, and how much memory it and its workers held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.2  # seconds between looks at the memory
MB = 1e6


@dataclass
class Peak:
    """The most that a process and its children held at once, megabytes."""

    memory: float = 0.0  # in RAM; a page that several share counts once, where the system says so
    anonymous: float = 0.0  # of it not backed by a file: what cannot be dropped and read again

    def look(self, root: psutil.Process) -> None:
        memory = anonymous = 0.0
        for process in [root, *_children(root)]:
            with suppress(psutil.Error, OSError):  # it ended meanwhile
                total, own = _held(process)
                memory, anonymous = memory + total, anonymous + own
        self.memory, self.anonymous = max(self.memory, memory), max(self.anonymous, anonymous)


def fresh(side: str, job: Mapping[str, Any], caches: Path) -> dict[str, Any]:
    """Run a side's job in a process of its own, with zoo's caches in a folder.

    Returns:
        What the side says, peaks of memory, and `seconds`: the whole process, and of it set-up, training and the rest,
        without what was off the clock.
    """
    with tempfile.TemporaryDirectory() as folder:
        ask, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.child", side]
        # zoo's cache alone moves: a font cache that has to be built anew would be charged to who draws a plot.
        environment = {**os.environ, "ZOO_CACHE": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
                       "FASTAI_HOME": str(caches / "fastai"), "HF_HUB_OFFLINE": "1"}  # fmt: skip
        started = time.monotonic()
        ask.write_text(json.dumps({**job, "started": started}), encoding="utf-8")
        process = subprocess.Popen([*command, str(ask), str(answer)], env=environment, stdout=sys.stderr)
        peak = Peak()
        try:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                while process.poll() is None:
                    peak.look(root)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(INTERVAL)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        wall = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"{side} failed with exit code {process.returncode}; its message is above")
        said = json.loads(answer.read_text(encoding="utf-8"))
    return {
        **said,
        "seconds": _seconds(said, wall),
        "memory_mb": round(peak.memory),
        "anonymous_mb": round(peak.anonymous),
    }


def warm(side: str) -> None:
    """Let a side import what it imports, so that the first run does not pay for reading it from the disk."""
    subprocess.run([sys.executable, "-m", "benchmarks.child", side], check=True, stdout=sys.stderr)


def _seconds(said: Mapping[str, Any], wall: float) -> dict[str, float]:
    marks, whole = said["marks"], wall - said["off_the_clock"]
    return {
        "whole": round(whole, 3),
        "setup": round(marks["training"], 3),
        "training": round(marks["trained"] - marks["training"], 3),
        "rest": round(whole - marks["trained"], 3),
        "off_the_clock": round(said["off_the_clock"], 3),
    }


def _children(root: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(root.children(recursive=True))
    return []


def _held(process: psutil.Process) -> tuple[float, float]:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:  # another system, or the process has just ended
        return process.memory_info().rss / MB, 0.0
    sizes = {name: int(rest.split()[0]) * 1024 / MB for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Pss"], sizes["Pss_Anon"]
