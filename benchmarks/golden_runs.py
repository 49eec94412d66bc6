"""How `golden` runs one revision: its files in a folder of their own, and commands that find zoo there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.golden_cases import Command

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("zoo", "plugins", "registry.yaml")  # of a checkout: what commands need
TIMEOUT = 900  # seconds for one command
_LOOK_EVERY = 0.02  # seconds
_FOREIGN = ("ZOO_", "HF_", "XDG_", "PYTHON", "OMP_", "MKL_", "KMP_", "TORCH")  # variables that could change a run

_WHERE = """
import importlib.util, json, sys
print(json.dumps([importlib.util.find_spec(name).origin for name in sys.argv[1:]]))
"""


class Failed(Exception):
    """A command did not do what it should."""


@dataclass(frozen=True)
class Tree:
    """One revision's files."""

    name: str  # as it was asked for
    id: str  # of its content
    path: Path


@dataclass(frozen=True)
class Kill:
    """Which signal a command gets, and when."""

    signal: signal.Signals
    steps: int  # lines of steps in its metrics


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    steps: int  # lines of steps that it wrote into metrics
    seconds: float


@dataclass(frozen=True)
class Folder:
    """Where a case is run at one revision."""

    path: Path

    @property
    def place(self) -> Path:
        """What the commands find as their working directory: all of it is compared."""
        return self.path / "place"

    @property
    def home(self) -> Path:
        """Home and caches."""
        return self.path / "home"

    @property
    def kept(self) -> Path:
        """The checkpoints that were seen; a finished run has none left."""
        return self.path / "kept"

    @staticmethod
    def output(name: str) -> str:
        """The name of the file of a command's output."""
        return f"{name}.out"

    def empty(self) -> None:
        """Make it anew."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in (self.place, self.home, self.kept):
            folder.mkdir(parents=True)


def tree(asked: str, trees: Path) -> Tree:
    """Put the files of a checkout (a folder) or of a revision of this repository into a folder of their own.

    So nobody who works on the checkout meanwhile changes what is compared.
    """
    if Path(asked).is_dir():
        root = Path(asked).resolve()
        identity = _content(root)
    else:
        identity = _git("rev-parse", "--verify", f"{asked}^{{commit}}").decode().strip()
    found = Tree(asked, identity, trees / identity[:12])
    if not found.path.is_dir():
        unfinished = trees / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if Path(asked).is_dir():
            for path in _files(root):
                (unfinished / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, unfinished / path.relative_to(root))
        else:
            with tarfile.open(fileobj=io.BytesIO(_git("archive", identity))) as archive:
                archive.extractall(unfinished, filter="data")
        unfinished.rename(found.path)
    return found


def check(found: Tree, folder: Folder) -> None:
    """Make sure that a command started for a tree runs that tree's zoo and plugins.

    Raises:
        SystemExit: It would run another one, or not find the plugins.
    """
    packages = ["zoo", *(path.parent.name for path in found.path.glob("plugins/*/*/__init__.py"))]
    where = _asked(found, folder, "-c", _WHERE, *packages)
    for name, origin in zip(packages, json.loads(where), strict=True):
        if not origin or not Path(origin).is_relative_to(found.path):
            raise SystemExit(f"{name} of {found.name} would be imported from {origin}, not from {found.path}")
    plugins = json.loads(_asked(found, folder, "-m", "zoo", "plugins", "list", "--json"))
    broken = [str(plugin["name"]) for plugin in plugins if plugin["status"] != "ok"]
    if broken or not plugins:
        raise SystemExit(f"{found.name} cannot use its plugins: {', '.join(broken) or 'none is installed'}")


def environment(found: Tree, folder: Folder) -> dict[str, str]:
    """The variables of a command: this tree first on the path, a home of its own, no network."""
    home, plugins = folder.home, sorted(path.parent.parent for path in found.path.glob("plugins/*/*/__init__.py"))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
        "PYTHONPATH": os.pathsep.join(map(str, [found.path, *plugins])),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "ZOO_CACHE": str(home / "zoo"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(folder.path.parent / "fonts"),  # fonts are looked for once, not in every case
        "MPLBACKEND": "agg",
        "COLUMNS": "120",
        "OMP_NUM_THREADS": "2",  # of the commands without --threads
        "OMP_WAIT_POLICY": "passive",  # threads that spin make a machine that others use many times slower
    }


def run(command: Command, found: Tree, folder: Folder, kill: Kill | None = None, *, resume: bool = False) -> Ended:
    """Run a command, and keep a link to every checkpoint that it writes.

    Args:
        command: The command.
        found: The tree that it is run by.
        folder: Where.
        kill: When it is killed.
        resume: Whether to go on with it.

    Raises:
        Failed: It ended with another exit code than it should, too late, or before it could be killed.
    """
    words, began, before = command.resume if resume else command.words, time.monotonic(), _steps(folder.place)
    steps, sent = 0, False
    output, complaints = folder.place / folder.output(command.name), folder.path / f"{command.name}.err"
    with output.open("wb") as out, complaints.open("wb") as err:
        process = subprocess.Popen([sys.executable, "-m", "zoo", *words], cwd=folder.place, stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=err, env=environment(found, folder))  # fmt: skip
        with _ended(process):
            while process.poll() is None and time.monotonic() - began < TIMEOUT:
                steps = max(steps, _steps(folder.place) - before)
                _keep_checkpoints(folder)
                if kill is not None and not sent and steps >= kill.steps:
                    _send(process, kill.signal)
                    sent = True
                time.sleep(_LOOK_EVERY)
    _keep_checkpoints(folder)
    if kill is not None and not sent:
        raise Failed(f"zoo {' '.join(words)} at {found.name} ended before it could be killed at step {kill.steps}")
    code, due = process.returncode, command.code
    if kill is not None:
        due = -signal.SIGKILL if kill.signal == signal.SIGKILL else 128 + kill.signal
    if code != due:
        said, last = (path.read_text(encoding="utf-8", errors="replace").strip() for path in (output, complaints))
        raise Failed(f"zoo {' '.join(words)} at {found.name} ended with {code}, not {due}: {said[:600]} {last[-600:]}")
    return Ended(code, max(steps, _steps(folder.place) - before), round(time.monotonic() - began, 1))


def _there(place: Path) -> list[Path]:
    """The files in a folder that others write in: unlike `rglob`, this bears that some are removed meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(place) for name in names]


def _steps(place: Path) -> int:
    """Lines of steps in all metrics."""
    count = 0
    for path in _there(place):
        if path.name != "metrics.jsonl":
            continue
        with contextlib.suppress(FileNotFoundError):  # a fold's run is gone when it has been asked
            count += path.read_bytes().count(b'"event": "step"')
    return count


def _keep_checkpoints(folder: Folder) -> None:
    """Link what is in folders of checkpoints: it appears there whole, and the newest of a name counts."""
    for path in _there(folder.place):
        name = path.relative_to(folder.place)
        if "checkpoints" not in name.parts or path.suffix not in (".pt", ".safetensors"):
            continue
        link = folder.kept / name
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            if link.exists() and link.samefile(path):
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            os.link(path, link)


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Tell a process to end as a person does, or end it and its children at once as a power cut does."""
    if number != signal.SIGKILL:
        process.send_signal(number)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        for each in (process, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(children, timeout=30)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind."""
    try:
        yield
    finally:
        if process.poll() is None:
            _send(process, signal.SIGKILL)
        process.wait()


def _asked(found: Tree, folder: Folder, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder.place, env=environment(found, folder),
                          stdout=subprocess.PIPE, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{found.name} cannot be run: its message is above")
    return done.stdout


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _files(root: Path) -> list[Path]:
    """The files of a checkout that commands need."""
    found = [path for part in PARTS for path in (root / part, *(root / part).rglob("*")) if path.is_file()]
    return sorted(path for path in found if path.suffix != ".pyc")


def _content(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _files(root):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()
