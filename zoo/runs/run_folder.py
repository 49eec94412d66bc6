"""The run folder: its paths and its record, without tensors."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from zoo.base import references
from zoo.base.files import write_atomic
from zoo.base.untrusted import JSON_LIMIT, parse_json, read_bytes
from zoo.errors import RunError
from zoo.runs.record import record_faults
from zoo.tasks.schema import ONE, SEVERAL, facts_of, headlines

SCHEMA = 1
MEMBERS = "members"  # in a stack's folder: its members' run folders, members/0, members/1, …
COMBINER = "stack.safetensors"  # in a stack's folder: the combiner


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The measures of a finished run on its test images; None if a measure does not apply to the task."""

    accuracy: float | None = None  # share of images with the right class or level, or every label right; 0 to 1
    loss: float  # mean cross-entropy, nats; per label for several labels; the sum over several tasks
    n: int  # images
    split: str  # the split they come from: "test", "val", …
    selected_on: str  # the split that chose the epoch (and rate): "val", "val (cut from train)", …
    top5: float | None = None  # share of images whose class is among the five most probable
    macro_f1: float | None = None  # mean F1 over classes or labels
    micro_f1: float | None = None  # F1 over all labels together
    ece: float | None = None  # expected calibration error, 15 bins
    map: float | None = None  # mean average precision over labels
    kappa: float | None = None  # agreement on levels, with quadratic weights
    r2: float | None = None  # explained share of a regression target's variance
    mae: float | None = None  # mean absolute error, in the regression target's unit or in levels
    rmse: float | None = None  # root mean squared error, in the regression target's unit
    score: float | None = None  # mean over tasks of each one's main measure
    tasks: Mapping[str, Result] | None = None  # the result of each of several tasks
    problem: str = ONE  # the kind of task, or "multi-task"

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Result:
        """Read a run's `result` record."""
        values = {entry.name: record[entry.name] for entry in fields(cls) if entry.name in record}
        if values.get("tasks") is not None:
            about = {"split": record["split"], "selected_on": record["selected_on"]}
            values["tasks"] = {name: cls.from_record({**about, **each}) for name, each in values["tasks"].items()}
        return cls(**values)

    @classmethod
    def missing(cls, record: dict[str, Any]) -> list[str]:
        """The required fields that a result lacks."""
        own = ["score", "tasks"] if record.get("problem") == SEVERAL else [m.key for m in facts_of(record).measures]
        needed = [*own, *(entry.name for entry in fields(cls) if entry.default is MISSING)]
        # None means that it could not be measured, for example without an image with any label.
        unknown = [name for name in headlines() if name in record and name != "accuracy"]
        lacking = [name for name in needed if record.get(name) is None and name not in unknown]
        for name, each in (record.get("tasks") or {}).items():
            lacking += [f"{field} of {name}" for field in cls.missing({"split": "", "selected_on": "", **each})]
        return lacking


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. Reading its record loads no tensors."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def record_path(self) -> Path:
        """`run.json`: everything about the run except tensors and pictures."""
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        """`metrics.jsonl`: a line for each step and epoch."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of resumable states."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """`report.html`: the page to look at."""
        return self.path / "report.html"

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            RunError: `run.json` is missing or damaged.
        """
        return read_record(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run ended with a result."""
        return bool(self.record.get("status") == "finished")

    @property
    def result(self) -> Result:
        """The measured result.

        Raises:
            RunError: The run is not finished, or its record is damaged.
        """
        return Result.from_record(self.finished_record()["result"])

    def finished_record(self) -> dict[str, Any]:
        """The content of `run.json`, of a finished run.

        Raises:
            RunError: The run is not finished, or its record is damaged; the message has the command to resume it.
        """
        record = self.record
        result = record.get("result")
        if record.get("status") != "finished" or result is None:
            raise RunError(
                f"the run {self.path} is not finished (status: {record.get('status')})", fix=way_on(record, self.path)
            )
        if missing := Result.missing(result):
            raise RunError(f"{self.record_path} is damaged", why=f"its result has no {', '.join(missing)}")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace `run.json` atomically."""
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A file name that is not UTF-8 holds lone surrogates; written as \udcxx they survive the round trip.
        write_atomic(self.record_path, text.encode("utf-8", "backslashreplace"))


def way_on(record: Mapping[str, Any], path: Path) -> str:
    """How to complete an unfinished run, with the command."""
    if record.get("soup"):  # of runs; a soup of a run's own epochs is only recorded at the end
        return f"delete {shlex.quote(str(path))}, and make the soup again: zoo soup RUN RUN ..."
    command = "stack" if record.get("kind") == "stack" else "adapt"
    return f"go on with it: zoo {command} --resume {shlex.quote(str(path))}"


def read_record(path: Path) -> dict[str, Any]:
    """Read a folder's `run.json`; raises RunError if it is missing, damaged, or from a newer zoo."""
    file = path / "run.json"
    try:
        record = parse_json(read_bytes(file, JSON_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        raise not_a_run(path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{file} cannot be read", why=reason) from error
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise RunError(f"{file} is not a run's record", why="it has no `schema` number")
    if record["schema"] > SCHEMA:
        raise RunError(f"{file} was written by a newer zoo ({record.get('zoo')})", fix="pip install --upgrade adaptzoo")
    if faults := record_faults(record):
        raise RunError(f"{file} is damaged", why="; ".join(faults), fix="restore the file")
    return record


def seal(record: dict[str, Any]) -> str:
    """The sha256 of a record without its key `files`, under which it is stored."""
    content = {key: value for key, value in record.items() if key != "files"}
    plain = json.loads(json.dumps(content))  # as it will be read back
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def find(reference: str | Path) -> Run | None:
    """The run at a path, or of a name under `runs/`; None if there is none."""
    for path in (Path(reference), Path("runs") / str(reference)):
        if os.path.isfile(path / "run.json"):  # unlike Path.is_file, False for a text too long for a path
            return Run(path)
    return None


def named(reference: str | Path | Run) -> Run:
    """The run at a path, or of a name under `runs/`; raises RunError if there is none."""
    run = reference if isinstance(reference, Run) else find(reference)
    if run is None:
        raise not_a_run(reference)
    return run


def not_a_run(reference: object) -> RunError:
    """The error for a path without a run."""
    fix = f"{near(str(reference))}see `zoo runs` for the runs here"
    return RunError(f"{reference} is not a run folder", why="it has no run.json", fix=fix)


def near(reference: str) -> str:
    """The run of the closest name, as the start of a fix; empty if there is none."""
    names = [run.name for run in list_runs(Path("runs"))]
    candidates = [*get_close_matches(reference, names, n=1), references.near_path(reference)]
    return references.did_you_mean(next((f"the run {name}" for name in candidates if name and find(name)), None))


def list_runs(root: Path) -> list[Run]:
    """The run folders directly under `root`, oldest first."""
    if not root.is_dir():
        return []
    files = [file for file in root.glob("*/run.json") if file.is_file()]
    return [Run(file.parent) for file in sorted(files, key=lambda file: (file.stat().st_mtime, str(file)))]
