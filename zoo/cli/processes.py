"""Several processes of one command on this machine, which look like one from outside.

Each process gets the environment that torch's launchers give (`RANK`, `WORLD_SIZE`, …), so that it does not matter to
the rest who started it. torchrun itself would kill what does not end within 30 seconds of a signal, which the current
step and its checkpoint may well need, and would write a report of its own where a command promises one message.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from zoo.base.files import write_atomic
from zoo.cli.output import WrongUsage, rank
from zoo.errors import RunError, TrainingInterrupted, ZooError
from zoo.runs import run_folder

COMMAND = (sys.executable, "-m", "zoo")
_FAULTS = "ZOO_FAULTS"  # the folder in which the processes leave their faults, for the first one to be told
_LOOK_EVERY = 0.05  # seconds
_GRACE = 10.0  # seconds for the others to end by themselves when one has failed
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def wanted(asked: int | None, resume: str | None, recipe: str | None) -> int:
    """How many processes a command has to start: 1 if it is to do the work itself.

    A run that goes on, or is repeated, takes as many as it had.

    Raises:
        WrongUsage: A launcher has started this process already.
    """
    if _FAULTS in os.environ:
        return 1
    if "WORLD_SIZE" in os.environ:
        if asked is not None:
            raise WrongUsage(
                "--processes starts processes by itself, and a launcher has started this one already",
                fix="leave either the launcher or --processes out",
            )
        return 1
    return asked or _recorded(resume or recipe)


def _recorded(source: str | None) -> int:
    if source is None:
        return 1
    found = run_folder.find(source) or run_folder.find(
        Path(source).parent if Path(source).name == "run.json" else source
    )
    with contextlib.suppress(RunError):  # said where the record is needed
        count = found.record.get("resolved", {}).get("processes", 1) if found else 1
        return count if isinstance(count, int) and count > 1 else 1
    return 1


def launch(words: Sequence[str], count: int) -> None:
    """Run `zoo` with these words in several processes, to their end.

    The first one prints the results. Signals reach all of them.

    Raises:
        ZooError: They failed; it is the fault of the process that failed first.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        group = _Group(words, count, Path(folder))
        with group.signalled():
            group.wait()
        fault = group.fault()
    if fault is not None:
        raise fault


def follow_launcher() -> None:
    """In a process started by `launch`: end when the launcher is killed, rather than to train on for nobody."""
    if _FAULTS in os.environ and sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, from linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def hand_over(fault: ZooError, code: int) -> bool:
    """Leave this process's fault to the launcher to tell; False: there is none, so it has to be told here."""
    folder = os.environ.get(_FAULTS)
    if folder is None:
        return False
    with contextlib.suppress(OSError, ZooError):
        # By the clock of the machine: what fails because another process is gone fails after it.
        write_atomic(_fault_path(Path(folder), rank()), json.dumps({**fault.record(), "code": code, "at": time.time()}))
    return True


class _Group:
    def __init__(self, words: Sequence[str], count: int, folder: Path) -> None:
        self._folder = folder
        self._signals: list[int] = []
        self._killed: set[int] = set()
        port = _free_port()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._members: list[subprocess.Popen[bytes]] = []
        for number in range(count):
            own = {
                "RANK": number,
                "LOCAL_RANK": number,
                "WORLD_SIZE": count,
                "LOCAL_WORLD_SIZE": count,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                _FAULTS: folder,
            }
            environment = {"OMP_NUM_THREADS": str(max(1, cores // count)), **os.environ, **_texts(own)}
            # In sessions of their own: a Ctrl-C on the terminal reaches them through this process, and so only once.
            self._members.append(
                subprocess.Popen(
                    [*COMMAND, *words],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=None if number == 0 else subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

    @contextlib.contextmanager
    def signalled(self) -> Iterator[None]:
        """Within it, signals go to all members; a third one ends them."""

        def forward(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)
            if len(self._signals) > 2:
                self._kill()
            for member in self._members:
                if member.poll() is None:
                    member.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _SIGNALS}
        try:
            yield
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self) -> None:
        """Until all have ended; when one fails, the others have a little time left."""
        deadline: float | None = None
        while None in [member.poll() for member in self._members]:  # a list: each of them is to be looked at
            # One that was told to stop ends well; another may still be writing down where they stand.
            failed = [code for code in self._codes() if code and code not in _stops()]
            if failed and deadline is None:
                deadline = time.monotonic() + _GRACE
            if deadline is not None and time.monotonic() > deadline:
                self._kill()
            time.sleep(_LOOK_EVERY)

    def fault(self) -> ZooError | None:
        """What to tell; None where all went well."""
        codes = self._codes()
        if not any(codes):
            return None
        faults = [fault for number in range(len(codes)) if (fault := self._left(number)) is not None]
        faults.sort(key=lambda fault: float(fault["at"]))
        silent = [number for number, code in enumerate(codes)
                  if code and number not in self._killed and self._left(number) is None]  # fmt: skip
        if self._signals and (silent or not faults):
            return TrainingInterrupted("interrupted", signal_number=self._signals[0])
        if silent:
            return _gone(silent[0], codes[silent[0]])
        first = faults[0]
        parts = first["what"], first["why"], first["fix"]
        if first["code"] in _stops():
            return TrainingInterrupted(parts[0], why=parts[1], fix=parts[2], signal_number=first["code"] - 128)
        kind = WrongUsage if first["code"] == 2 else ZooError
        return kind(parts[0], why=parts[1], fix=parts[2])

    def _codes(self) -> list[int]:
        return [member.returncode or 0 for member in self._members]

    def _left(self, number: int) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(_fault_path(self._folder, number).read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None

    def _kill(self) -> None:
        for number, member in enumerate(self._members):
            if member.poll() is None:
                self._killed.add(number)
                member.kill()
                member.wait()


def _gone(number: int, code: int) -> ZooError:
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = "the system kills what takes too much memory" if name == "SIGKILL" else ""
            return ZooError(
                f"process {number} was ended by {name}", why=why, fix="try fewer --processes, or a smaller --batch-size"
            )
    return ZooError(f"process {number} ended with code {code} and gave no reason", fix="run it again with --debug")


def _stops() -> tuple[int, ...]:
    return tuple(128 + number for number in _SIGNALS)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _fault_path(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
