"""Real processes that start at once: a parent that has imported everything forks a child for each command line.

`python -m tests.faults.nursery` reads jobs from stdin, a JSON line each, and answers each with the child's exit status.
A job: `words` (after `zoo`), `folder` (to run in), `out` and `err` (files), and `fault` (see tests/faults/points.py).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Whatever a command may need, imported once.
HEAVY = ("zoo.runs.publish.push", "zoo.runs.reproduce", "zoo.runs.train", "zoo.runs.use", "zoo.studies.align_auto",
         "zoo.studies.compare.compare", "zoo.studies.ensemble.soup", "zoo.studies.ensemble.stack",
         "zoo.studies.rank.rank", "zoo.testing")  # fmt: skip
TIMEOUT = 900  # seconds that a child may take before it is killed as hung


@dataclass(frozen=True)
class Ended:
    """What one command line left behind."""

    status: int  # exit code, or minus the signal that killed it
    out: str
    err: str

    @property
    def code(self) -> int:
        return self.status


class Nursery:
    """The parent, seen from a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, folder: Path, *words: object, **fault: Any) -> Ended:
        """Run `zoo words…` in a folder; its output goes beside the folder, so that a full disk does not silence it."""
        out, err = (folder.parent / f"{folder.name}.{name}" for name in ("out", "err"))
        job = {"words": [str(word) for word in words], "folder": str(folder), "out": str(out), "err": str(err)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({**job, "fault": fault}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery died"
        return Ended(int(answer), out.read_text(), err.read_text())


@contextmanager
def nursery(**variables: str) -> Iterator[Nursery]:
    """A parent with these environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.nursery"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def serve() -> None:
    for name in HEAVY:  # zoo.api imports them only when it is called
        importlib.import_module(name)

    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _live(job)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _live(job: dict[str, Any]) -> None:
    """Be one command line, and never come back."""
    import signal

    from tests.faults import points
    from zoo.cli import main

    code = 70
    try:
        signal.alarm(TIMEOUT)
        folder = Path(job["folder"])
        for number, name in ((1, job["out"]), (2, job["err"])):
            file = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, number)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        os.chdir(folder)
        os.environ["ZOO_CACHE"] = str(folder / "cache")
        points.install(folder, **job["fault"])
        code = main.run(job["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
