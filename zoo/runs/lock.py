"""Lock of a run folder: one process at a time creates it, writes to it, and cleans up after a crash."""

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

_LOCK, _HOLDER = "lock", "holder.json"  # in checkpoints/, which is removed when the run is finished
_WORKERS_GONE = 15.0  # seconds; the workers of a killed process notice within a third of this, and release the lock


def refuse_used(path: Path) -> None:
    """Raises RunError if no new run can be made in a folder: it holds something already, or is not writable."""
    if (path / "run.json").is_file():
        raise RunError(f"{path} holds a run already", fix=f"choose another --out, or {_way_on(path)}")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is not a folder", fix="choose another --out")
    with files.friendly_os_errors(path):
        if path.is_dir() and not _left_by_a_start(path):
            raise RunError(f"{path} exists and is not empty", fix="choose another --out")
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "no permission to write in it" if nearest.is_dir() else "it is not a folder"
        raise RunError(f"the run folder {path} cannot be made in {nearest}", why=why, fix="choose another --out")


def begun(this: Run, kind: str) -> dict[str, Any]:
    """The fields that the first record of every run has."""
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
    """Make and lock a run folder with its first record; out=None makes `runs/NAME`, numbered if the name is taken.

    Raises RunError if another process has just made a run there. Whatever fails, a half-made folder is removed.
    """
    this = Run(reserved(name) if out is None else out.resolve())
    existed = out is not None and this.path.exists()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(this))
        except DiskError:
            _unmake(this, existed)
            raise
        try:
            refuse_used(this.path)
            tidy(this)
            this.write_record(record(this))
        except BaseException:
            _unmake(this, existed)
            raise
        yield this


def held(this: Run) -> contextlib.AbstractContextManager[None]:
    """Lock a run folder within the block, as `held_by` does."""
    return held_by(this.path, this.checkpoints)


@contextlib.contextmanager
def held_by(path: Path, inside: Path) -> Iterator[None]:
    """Lock a folder within the block, by a lock file in its subfolder `inside`.

    Raises RunError if another process holds the lock. The operating system releases that of a dead process.
    """
    with files.friendly_os_errors(path):
        inside.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inside / _LOCK)
        holder = _holder(inside)
        try:
            lock.acquire(timeout=_WORKERS_GONE if holder and _is_dead(holder) else 0)
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
    """Remove the temporary files of a killed process; the caller must hold the lock."""
    for folder in (this.path, this.checkpoints, *filter(Path.is_dir, this.checkpoints.glob("*"))):
        for pattern in (".*.tmp", ".tmp*", ".saving-*"):  # from zoo, from safetensors, from saving a model
            for path in folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def reserved(name: str) -> Path:
    """Make a new folder under `runs/`; no other process gets the same one."""
    while True:
        path = files.free_path(Path("runs"), name).resolve()
        with files.friendly_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another run took the name just now
                path.mkdir()
                return path


def _unmake(this: Run, existed: bool) -> None:
    """Remove the lock files, and the folder too if it is new."""
    for path in (this.checkpoints / _HOLDER, this.checkpoints / _LOCK):
        with contextlib.suppress(OSError):
            path.unlink()
    for folder in (this.checkpoints, *(() if existed else (this.path,))):
        with contextlib.suppress(OSError):  # somebody else's, and not empty
            folder.rmdir()


def _left_by_a_start(path: Path) -> bool:
    """Whether a folder is empty, or its process was killed before it wrote the first record."""
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


def _is_dead(holder: dict[str, Any]) -> bool:
    if os.name == "posix" and holder["host"] == socket.gethostname():
        try:
            os.kill(holder["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it is somebody else's, and alive
            pass
    return False
