"""`zoo` commands with faults, each in a process forked from a parent that has imported everything (tests/forks.py).

`python -m tests.faults.nursery JOB` is one such command. The job, as JSON: `words` (after `zoo`), `folder` (to run in)
and `fault` (see tests/faults/points.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forks import Forks

ROOT = Path(__file__).resolve().parents[2]
# Whatever a command may need, imported once.
HEAVY = ("zoo.runs.publish.push", "zoo.runs.reproduce", "zoo.runs.train", "zoo.runs.use", "zoo.studies.align_auto",
         "zoo.studies.compare.compare", "zoo.studies.ensemble.soup", "zoo.studies.ensemble.stack",
         "zoo.studies.rank.rank", "zoo.testing", "zoo.cli.main")  # fmt: skip


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

    def __init__(self, forks: Forks, environment: Mapping[str, str]) -> None:
        self._forks, self._environment = forks, environment

    def run(self, folder: Path, *words: object, **fault: Any) -> Ended:
        """Run `zoo words…` in a folder; its output goes elsewhere, so that a full disk does not silence it."""
        job = json.dumps({"words": [str(word) for word in words], "folder": str(folder), "fault": fault})
        environment = {**self._environment, "ZOO_CACHE": str(folder / "cache")}
        done = self._forks.run(["-m", "tests.faults.nursery", job], environment, folder)
        return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def nursery(**variables: str) -> Iterator[Nursery]:
    """A parent with these environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300", **variables}
    forks = Forks(modules=HEAVY, environment=environment)
    try:
        yield Nursery(forks, environment)
    finally:
        forks.close()


def live(job: Mapping[str, Any]) -> int:
    """Be one command line, and return its exit code."""
    from tests.faults import points
    from zoo.cli import main

    points.install(Path(job["folder"]), **job["fault"])
    return main.run(job["words"])


if __name__ == "__main__":
    sys.exit(live(json.loads(sys.argv[1])))
