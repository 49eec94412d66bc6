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

INTERVAL = 0.1  # seconds between looks at the process itself
SHARE = 0.005  # of the time, at most, for looking at its children too: that takes milliseconds for each of them
MB = 1e6


@dataclass
class Peak:
    """The most that a process and its children were seen to hold at once, megabytes.

    What the process alone holds is cheap to know, and is known well. How much of their memory it and its workers share
    is dear to know: the system walks through all their pages meanwhile, and would slow down whoever has workers. So
    that is asked seldom, and a short peak inside a worker may be missed.
    """

    memory: float = 0.0  # in RAM; a page that several share counts once, where the system says so
    anonymous: float = 0.0  # of it not backed by a file: what cannot be dropped and read again
    due: float = 0.0  # when all are looked at next, by the monotonic clock

    def look(self, root: psutil.Process) -> None:
        """Look at the process, and at its children if that is due."""
        self._seen(*_alone(root))
        began = time.monotonic()
        if began >= self.due:
            self.look_at_all(root)
            self.due = began + (time.monotonic() - began) / SHARE

    def look_at_all(self, root: psutil.Process) -> None:
        held = [_shared(process) for process in [root, *_children(root)]]
        self._seen(sum(memory for memory, _ in held), sum(anonymous for _, anonymous in held))

    def _seen(self, memory: float, anonymous: float) -> None:
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


def _alone(process: psutil.Process) -> tuple[float, float]:
    """Resident and anonymous megabytes of one process; nothing once it has ended."""
    sizes = _sizes(process, "status")
    if "VmRSS" in sizes:
        return sizes["VmRSS"], sizes["RssAnon"]
    with suppress(psutil.Error):
        return process.memory_info().rss / MB, 0.0
    return 0.0, 0.0


def _shared(process: psutil.Process) -> tuple[float, float]:
    """The same, of each shared page the share of this process; where the system does not say, all of it."""
    sizes = _sizes(process, "smaps_rollup")
    return (sizes["Pss"], sizes["Pss_Anon"]) if "Pss_Anon" in sizes else _alone(process)


def _sizes(process: psutil.Process, name: str) -> dict[str, float]:
    """The lines of one of Linux's files about a process that give kilobytes, as megabytes."""
    try:
        lines = Path(f"/proc/{process.pid}/{name}").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system, or the process has ended
        return {}
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {key: int(rest.split()[0]) * 1024 / MB for key, _, rest in pairs}
