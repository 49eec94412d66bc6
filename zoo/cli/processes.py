"""Launcher of several processes of one command on this machine, which look like one from outside.

Each process gets the environment of torch's launchers (`RANK`, `WORLD_SIZE`, …), so that other code need not know which
launcher it was. torchrun itself kills processes 30 seconds after a signal, which may be too soon for the current step
and its checkpoint, and writes a report of its own, while a command promises one message.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.base.files import write_atomic
from zoo.base.processes import STOPS, Children, environment, killer, supervising
from zoo.cli.output import WrongUsage, rank
from zoo.errors import RunError, TrainingInterrupted, ZooError
from zoo.runs import run_folder

COMMAND = (sys.executable, "-m", "zoo")
_FAULTS = "ZOO_FAULTS"  # the folder where processes leave their errors, of which the launcher shows the first
_LOOK_EVERY = 0.05  # seconds
_GRACE = 10.0  # seconds for the others to end by themselves after one has failed
_STOPPED = tuple(128 + number for number in STOPS)  # exit codes after a signal to stop


def number_to_start(typed: int | None, resume: str | None, recipe: str | None) -> int:
    """The number of processes to start, that of the recorded run by default; 1: the command does the work itself.

    Raises WrongUsage if a launcher has started this process already.
    """
    if _FAULTS in os.environ:
        return 1
    if "WORLD_SIZE" in os.environ:
        if typed is not None:
            what = "--processes starts processes by itself, and a launcher has started this one already"
            raise WrongUsage(what, fix="leave either the launcher or --processes out")
        return 1
    return typed or _recorded(resume or recipe)


def _recorded(source: str | None) -> int:
    if source is None:
        return 1
    folder = Path(source).parent if Path(source).name == "run.json" else source
    found = run_folder.find(source) or run_folder.find(folder)
    with contextlib.suppress(RunError):  # raised again when the record is needed
        count = found.record.get("resolved", {}).get("processes", 1) if found else 1
        return count if isinstance(count, int) and count > 1 else 1
    return 1


def launch(words: Sequence[str], count: int) -> None:
    """Run `zoo` with these words in several processes, of which the first prints the results.

    Signals reach all of them; a third one kills them. Raises the error of the process that failed first.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder, supervising() as children:
        _start(children, words, count, folder)
        _wait(children)
        fault = _fault(children, Path(folder))
    if fault is not None:
        raise fault


def follow_launcher() -> None:
    """In a process started by `launch`: end if the launcher is killed."""
    if _FAULTS in os.environ and sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, from linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def hand_over(fault: ZooError, code: int) -> bool:
    """Leave this process's error for the launcher to show; False: there is no launcher."""
    folder = os.environ.get(_FAULTS)
    if folder is None:
        return False
    with contextlib.suppress(OSError, ZooError):
        # Time by the machine's clock: an error that is caused by the end of another process comes after it.
        write_atomic(_fault_path(Path(folder), rank()), json.dumps({**fault.record(), "code": code, "at": time.time()}))
    return True


def _start(children: Children, words: Sequence[str], count: int, folder: str) -> None:
    port = _free_port()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for number in range(count):
        own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, _FAULTS: folder}  # fmt: skip
        threads = {"OMP_NUM_THREADS": str(max(1, cores // count))}
        variables = {**threads, **environment(), **{name: str(value) for name, value in own.items()}}
        stdout = None if number == 0 else subprocess.DEVNULL
        children.start([*COMMAND, *words], variables, stdin=subprocess.DEVNULL, stdout=stdout)


def _wait(children: Children) -> None:
    """Wait until all have ended; if one fails, the others are killed after a grace period."""
    deadline: float | None = None
    while None in [member.poll() for member in children.members]:  # a list, so that each of them is polled
        # One that stops on a signal has not failed; another may still be saving the state.
        if deadline is None and any(member.returncode not in (None, 0, *_STOPPED) for member in children.members):
            deadline = time.monotonic() + _GRACE
        if len(children.signals) > 2 or (deadline is not None and time.monotonic() > deadline):
            children.kill()
        time.sleep(_LOOK_EVERY)


def _fault(children: Children, folder: Path) -> ZooError | None:
    """The error to show; None if there is none."""
    if not any(member.returncode for member in children.members):
        return None
    left = [_left(folder, number) for number in range(len(children.members))]
    faults = sorted((fault for fault in left if fault is not None), key=lambda fault: float(fault["at"]))
    silent = [number for number, member in enumerate(children.members)
              if member.returncode and member not in children.killed and left[number] is None]  # fmt: skip
    if children.signals and (silent or not faults):
        return TrainingInterrupted("interrupted", signal_number=children.signals[0])
    if silent:
        return _gone(silent[0], children.members[silent[0]].returncode)
    first = faults[0]
    parts = {part: first[part] for part in ("what", "why", "fix")}
    if first["code"] in _STOPPED:
        return TrainingInterrupted(**parts, signal_number=first["code"] - 128)
    return (WrongUsage if first["code"] == 2 else ZooError)(**parts)


def _left(folder: Path, number: int) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_fault_path(folder, number).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def _gone(number: int, code: int) -> ZooError:
    name = killer(code)
    if not name:
        return ZooError(f"process {number} ended with code {code} and gave no reason", fix="run it again with --debug")
    return ZooError(
        f"process {number} was ended by {name}",
        why="the system kills processes that take too much memory" if name == "SIGKILL" else "",
        fix="try fewer --processes, or a smaller --batch-size",
    )


def _fault_path(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
