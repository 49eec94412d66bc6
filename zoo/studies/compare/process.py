"""A job in a process of its own: started, listened to, stopped when we are, and its end explained."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import zoo
from zoo.errors import TrainingError, TrainingInterrupted, ZooError
from zoo.events import Event, Listener, PhaseStarted, Progress, StepDone

_EVENTS: dict[str, type[Event]] = {"Progress": Progress, "PhaseStarted": PhaseStarted, "StepDone": StepDone}
_TAIL = 600  # characters of what a process last wrote that a message quotes


def carry_out(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job of `zoo.studies.compare.child` in a fresh process.

    Ctrl-C and SIGTERM are handed on to it: it saves its state, and then this raises.

    Raises:
        TrainingInterrupted: We were told to stop.
        ZooError: The job failed, or its process died; the message says why.
    """
    with tempfile.TemporaryFile() as errors, _signals() as received:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zoo.studies.compare.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            # A Ctrl-C on a terminal goes to everybody there; this one is to get ours, once.
            start_new_session=True,
        )
        received.process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died at once; its end says why
                process.stdin.write(json.dumps(job).encode())
                process.stdin.close()
            kind: str = ""
            content: dict[str, Any] = {}
            for line in process.stdout:
                kind, content = json.loads(line)
                if kind in _EVENTS:
                    emit(_EVENTS[kind](**content))
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        if received.number is not None:
            raise TrainingInterrupted("stopped", signal_number=received.number)
        if kind == "answer":
            return dict(content)
        if kind == "error":
            raise ZooError(content["what"], why=content["why"], fix=content["fix"])
        raise TrainingError(_death(code), why=_last_words(errors), fix="run it alone to see more: zoo adapt …")


class _Received:
    """The signal that came, if one did, and whom it is handed on to."""

    number: int | None = None
    process: subprocess.Popen[bytes] | None = None


@contextlib.contextmanager
def _signals() -> Iterator[_Received]:
    """Within it, signals that mean "stop" are handed on; only Python's main thread gets any."""
    received = _Received()

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.number = received.number or number
        if received.process is not None and received.process.poll() is None:
            received.process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    """This environment, in which the same zoo is found, be it a checkout that nobody installed."""
    home = Path(zoo.__file__).resolve().parents[1]
    if home.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, str(home)]))}


def _death(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ": most likely the system ran out of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"


def _last_words(errors: Any) -> str:
    errors.seek(0)
    text = errors.read().decode("utf-8", "replace").strip()
    return " ".join(text[-_TAIL:].split())
