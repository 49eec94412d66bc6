"""The run folder: its paths and its record. No tensors here."""

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
COMBINER = "stack.safetensors"  # the same: what combines them


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a finished run measured on the images it reports on; None is what is not said of such images."""

    accuracy: float | None = None  # share of images whose class, or step, is right, or of which every label is, 0 to 1
    loss: float  # mean cross-entropy, nats; for several labels per label; of several tasks the sum
    n: int  # images
    split: str  # where they come from: "test", "val", …
    selected_on: str  # what chose the epoch (and rate): "val", "val (cut from train)", …
    top5: float | None = None  # share of images whose class is among the five most probable
    macro_f1: float | None = None  # mean over classes, or labels, of F1
    micro_f1: float | None = None  # F1 over all labels together
    ece: float | None = None  # expected calibration error, 15 bins
    map: float | None = None  # mean average precision over labels
    kappa: float | None = None  # agreement on steps, with quadratic weights
    r2: float | None = None  # share of a quantity's variance that is explained
    mae: float | None = None  # mean distance from the truth: in a quantity's unit, or in steps
    rmse: float | None = None  # root of the mean squared distance, in a quantity's unit
    score: float | None = None  # mean over tasks of what each is known by
    tasks: Mapping[str, Result] | None = None  # of several tasks, each one's
    problem: str = ONE  # what images answer: that, another kind of task, or "multi-task"

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Result:
        """Take the fields out of a run's `result` record."""
        values = {entry.name: record[entry.name] for entry in fields(cls) if entry.name in record}
        if values.get("tasks") is not None:
            about = {"split": record["split"], "selected_on": record["selected_on"]}
            values["tasks"] = {name: cls.from_record({**about, **each}) for name, each in values["tasks"].items()}
        return cls(**values)

    @classmethod
    def missing(cls, record: dict[str, Any]) -> list[str]:
        """The fields that a result must have and this one lacks."""
        own = ["score", "tasks"] if record.get("problem") == SEVERAL else [m.key for m in facts_of(record).measures]
        needed = [*own, *(entry.name for entry in fields(cls) if entry.default is MISSING)]
        # None says that there was nothing to measure it by, such as an image with any label.
        unknown = [name for name in headlines() if name in record and name != "accuracy"]
        found = [name for name in needed if record.get(name) is None and name not in unknown]
        for name, each in (record.get("tasks") or {}).items():
            lacks = cls.missing({"split": "", "selected_on": "", **each})
            found += [f"{field} of {name}" for field in lacks]
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder. Reading its record touches no tensors."""

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
            RunError: It is missing or damaged.
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
        """The record of a run that must be finished to be used.

        Raises:
            RunError: It is not; the message has the command to go on with it.
        """
        record = self.record
        result = record.get("result")
        if record.get("status") != "finished" or result is None:
            raise RunError(
                f"the run {self.path} is not finished (status: {record.get('status')})", fix=way_on(record, self.path)
            )
        missing = Result.missing(result)
        if missing:
            raise RunError(f"{self.record_path} is damaged", why=f"its result has no {', '.join(missing)}")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace `run.json` as a whole."""
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A file name that is not UTF-8 holds lone surrogates; as \udcxx they are valid JSON and come back as they were.
        write_atomic(self.record_path, text.encode("utf-8", "backslashreplace"))


def way_on(record: Mapping[str, Any], path: Path) -> str:
    """What to do about a run that is not finished, with the command."""
    if record.get("soup"):  # of runs: that of a run's own epochs is written when the run is finished
        return f"delete {shlex.quote(str(path))}, and make the soup again: zoo soup RUN RUN ..."
    command = "stack" if record.get("kind") == "stack" else "adapt"
    return f"go on with it: zoo {command} --resume {shlex.quote(str(path))}"


def read_record(path: Path) -> dict[str, Any]:
    """Read a run folder's `run.json`.

    Raises:
        RunError: There is none, or it is not a record that this version reads.
    """
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
    faults = record_faults(record)
    if faults:
        raise RunError(f"{file} is damaged", why="; ".join(faults), fix="bring the file back as it was")
    return record


def seal(record: dict[str, Any]) -> str:
    """The sha256 of a record without its key `files`: what that key says about run.json itself."""
    content = {key: value for key, value in record.items() if key != "files"}
    plain = json.loads(json.dumps(content))  # as it will be read back
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find(reference: str | Path) -> Run | None:
    """The run that a path or a bare name under `runs/` means, or None."""
    for path in (Path(reference), Path("runs") / str(reference)):
        if os.path.isfile(path / "run.json"):  # unlike Path.is_file, False for a text too long to be a path
            return Run(path)
    return None


def named(reference: str | Path | Run) -> Run:
    """The run that a path or a bare name under `runs/` means.

    Raises:
        RunError: It is not the folder of one.
    """
    found = reference if isinstance(reference, Run) else find(reference)
    if found is None:
        raise not_a_run(reference)
    return found


def not_a_run(reference: object) -> RunError:
    """What to say of a path that is no run's."""
    fix = f"{near(str(reference))}see `zoo runs` for the runs here"
    return RunError(f"{reference} is not a run folder", why="it has no run.json", fix=fix)


def near(reference: str) -> str:
    """The run that is named nearly so, as the beginning of a fix; empty if there is none."""
    names = [run.name for run in list_runs(Path("runs"))]
    found = [*get_close_matches(reference, names, n=1), references.near_path(reference)]
    return references.did_you_mean(next((f"the run {name}" for name in found if name and find(name)), None))


def list_runs(root: Path) -> list[Run]:
    """Every run folder directly under `root`, oldest first."""
    if not root.is_dir():
        return []
    files = [file for file in root.glob("*/run.json") if file.is_file()]
    return [Run(file.parent) for file in sorted(files, key=lambda file: (file.stat().st_mtime, str(file)))]
