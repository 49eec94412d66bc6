"""The run folder as something that one run at a time writes in: made, held, and tidied after an accident."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.base import files
from zoo.base.files import write_atomic
from zoo.errors import DiskError, RunError
from zoo.runs import run_folder
from zoo.runs.run_folder import Run
from zoo.version import __version__

_LOCK, _HOLDER = "lock", "holder.json"  # in checkpoints/, which is gone when the run is finished
_WORKERS_GONE = 15.0  # seconds: a killed process's workers see that it is gone within a third of this, and let go


def refuse_used(path: Path) -> None:
    """Refuse a folder that a new run cannot be made in.

    Raises:
        RunError: It holds something already, or cannot be written to.
    """
    if (path / "run.json").is_file():
        raise RunError(f"{path} holds a run already", fix=f"choose another --out, or {_way_on(path)}")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is not a folder", fix="choose another --out")
    with files.friendly_os_errors(path):
        if path.is_dir() and not _left_by_a_start(path):
            raise RunError(f"{path} exists and is not empty", fix="choose another --out")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "no permission to write in it" if there.is_dir() else "it is not a folder"
        raise RunError(f"the run folder {path} cannot be made in {there}", why=why, fix="choose another --out")


def begun(this: Run, kind: str) -> dict[str, Any]:
    """What the first record of every run says, whatever was done."""
    return {
        "schema": run_folder.SCHEMA,
        "zoo": __version__,
        "kind": kind,
        "status": "running",
        "name": this.name,
        "id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def made(out: Path | None, name: str, record: Callable[[Run], dict[str, Any]]) -> Iterator[Run]:
    """Make a run's folder with its first record, and hold it within the block.

    Args:
        out: Where; None: a new one under `runs/`.
        name: What that one is called, if the name is free.
        record: What run.json says at first.

    Raises:
        RunError: Another process has just made a run there.
        DiskError: It cannot be written; what was made of it is gone again.
    """
    this = Run(reserved(name) if out is None else out.resolve())
    there = out is not None and this.path.exists()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(this))
        except DiskError:
            _unmake(this, there)
            raise
        try:
            refuse_used(this.path)
            tidy(this)
            this.write_record(record(this))
        except BaseException:
            _unmake(this, there)
            raise
        yield this


@contextlib.contextmanager
def held(this: Run) -> Iterator[None]:
    """Keep other processes from writing in a run's folder within the block.

    Raises:
        RunError: Another process holds it; the message says which.
        DiskError: The folder cannot be written to.
    """
    with held_by(this.path, this.checkpoints):
        yield


@contextlib.contextmanager
def held_by(path: Path, inside: Path) -> Iterator[None]:
    """Keep other processes from writing in a folder within the block.

    The operating system lets go of the lock of a process that is gone, however it went.

    Args:
        path: The folder.
        inside: One in it, in which the lock lies.

    Raises:
        RunError: Another process holds it; the message says which.
        DiskError: The folder cannot be written to.
    """
    with files.friendly_os_errors(path):
        inside.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inside / _LOCK)
        holder = _holder(inside)
        try:
            lock.acquire(timeout=_WORKERS_GONE if holder and _is_gone(holder) else 0)
        except Timeout:
            raise _in_use(path, inside) from None
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        write_atomic(inside / _HOLDER, json.dumps(facts))
        yield
    finally:
        lock.release()


def tidy(this: Run) -> None:
    """Remove what a killed process had not finished writing; only for one that holds the folder."""
    for folder in (this.path, this.checkpoints, *filter(Path.is_dir, this.checkpoints.glob("*"))):
        for pattern in (".*.tmp", ".tmp*", ".saving-*"):  # ours, those of safetensors, those of a model being saved
            for path in folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def reserved(name: str) -> Path:
    """A new folder under `runs/`, which this process alone has made."""
    root = Path("runs")
    while True:
        path = files.free_path(root, name).resolve()
        with files.friendly_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:  # another run took the name just now
                continue
        return path


def _unmake(this: Run, there: bool) -> None:
    """Remove what making the folder has put there, and the folder too if it is new."""
    for path in (this.checkpoints / _HOLDER, this.checkpoints / _LOCK):
        with contextlib.suppress(OSError):
            path.unlink()
    for folder in (this.checkpoints, *(() if there else (this.path,))):
        with contextlib.suppress(OSError):  # it was somebody else's, and is not empty
            folder.rmdir()


def _left_by_a_start(path: Path) -> bool:
    """Whether a folder holds nothing, or only what is made before the first record: its process was killed then."""
    inside = {entry.name for entry in path.iterdir()}
    early = {name for name in inside if name == "checkpoints" or name.startswith((".run.json.", ".tmp"))}
    states = any((path / "checkpoints").glob("step-*")) or any((path / "checkpoints").glob("best-*"))
    return inside == early and not states


def _way_on(path: Path) -> str:
    with contextlib.suppress(RunError):
        return run_folder.way_on(run_folder.read_record(path), path)
    return "delete it: its record is damaged"


def _in_use(path: Path, inside: Path) -> RunError:
    holder = _holder(inside)
    if holder is None:
        return RunError(f"{path} is in use by another process", fix="wait for it, or stop it")
    stop = f": kill {holder['pid']}" if holder["host"] == socket.gethostname() else " there"
    return RunError(
        f"{path} is in use",
        why=f"process {holder['pid']} on {holder['host']} has been writing in it since {holder['since']}",
        fix=f"wait for it, or stop it{stop}",
    )


def _holder(inside: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads((inside / _HOLDER).read_text(encoding="utf-8"))
        return {"pid": int(facts["pid"]), "host": str(facts["host"]), "since": str(facts["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_gone(holder: dict[str, Any]) -> bool:
    if os.name != "posix" or holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
