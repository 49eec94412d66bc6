"""Jobs of a comparison in processes of their own: start one, forward its events and signals, explain its end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from typing import Any

from zoo.base.processes import environment, killer, supervising
from zoo.errors import TrainingError, TrainingInterrupted, ZooError
from zoo.events import Event, Listener, PhaseStarted, Progress, StepDone

_EVENTS: dict[str, type[Event]] = {"Progress": Progress, "PhaseStarted": PhaseStarted, "StepDone": StepDone}
_TAIL = 600  # characters of a process's last output that a message quotes


def carry_out(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job of `zoo.studies.compare.child` in a new process.

    Ctrl-C and SIGTERM are handed on: it saves its state, then this raises TrainingInterrupted. Raises ZooError if the
    job fails or its process dies.
    """
    with tempfile.TemporaryFile() as errors, supervising() as children:
        process = children.start(
            [sys.executable, "-P", "-m", "zoo.studies.compare.child"],
            environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdin is not None and process.stdout is not None
        with process.stdout as lines:
            with contextlib.suppress(BrokenPipeError):  # it died at once; its end says why
                process.stdin.write(json.dumps(job).encode())
                process.stdin.close()
            kind, content = "", {}
            for line in lines:
                kind, content = json.loads(line)
                if kind in _EVENTS:
                    emit(_EVENTS[kind](**content))
            code = process.wait()
        if children.signals:
            raise TrainingInterrupted("stopped", signal_number=children.signals[0])
        if kind == "answer":
            return dict(content)
        if kind == "error":
            raise ZooError(content["what"], why=content["why"], fix=content["fix"])
        raise TrainingError(_death(code), why=_last_words(errors), fix="run it alone to see more: zoo adapt …")


def _death(code: int) -> str:
    name = killer(code)
    if not name:
        return f"its process ended with exit code {code}"
    cause = ": most likely the system ran out of memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{cause}"


def _last_words(errors: Any) -> str:
    errors.seek(0)
    return " ".join(errors.read().decode("utf-8", "replace").strip()[-_TAIL:].split())
