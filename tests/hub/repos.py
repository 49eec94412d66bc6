"""Repositories as folders: `models/ORG/NAME/…` and `datasets/ORG/NAME/…` below one root.

A folder is what `main` points to. Whatever is put into it by hand becomes a commit when it is next looked at, and a
commit sent by a client is written into it. Commits and contents are kept in `.hub/KIND/ORG/NAME`: each stays readable.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

GATED = ".gated"  # names the users, one a line, who accepted the terms; everybody else is refused
PRIVATE = ".private"  # only its namespace's people know of it
NAME_RULE = (
    "Only regular characters and '-', '_', '.' are accepted. '--' and '..' are forbidden. '-' and '.' cannot start or "
    'end the name. The name cannot end with ".git". Max length is 96.'
)
_SUFFIXES = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar "
    "safetensors tar tflite tgz wasm xz zip zst"
)
_LFS = _SUFFIXES.split()
_PICTURES = ["gif", "jpeg", "jpg", "png", "webp"]  # not among the attributes, but their bytes say so to the Hub
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS)
_LARGE = 10 * 2**20  # bytes; above, a file of any name is stored as a large one
_SETTLED = 100_000_000  # nanoseconds


@dataclass(frozen=True)
class Blob:
    """A file's content."""

    sha256: str
    oid: str  # git's, sha1
    size: int  # bytes


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    message: str
    author: str
    files: dict[str, Blob]  # by path, sorted


class Repo:
    """One repository; made by `Repos`."""

    def __init__(self, kind: str, identity: str, folder: Path, store: Path, lock: threading.RLock) -> None:
        self.kind = kind
        self.identity = identity
        self.folder = folder
        self._log = store / "commits.jsonl"
        self._objects = store / "objects"
        self._lock = lock
        self._seen: dict[Path, tuple[tuple[int, int], Blob]] = {}
        self._commits = [_read(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    @property
    def private(self) -> bool:
        return (self.folder / PRIVATE).exists()

    @property
    def gate(self) -> list[str] | None:
        """The users who may pass; None without a gate."""
        marker = self.folder / GATED
        return marker.read_text().split() if marker.exists() else None

    def commits(self) -> list[Commit]:
        """All of them, the oldest first; what was put into the folder by hand is a commit too."""
        with self._lock:
            files = self._files()
            if not self._commits or files != self._commits[-1].files:
                for path in files:
                    self.add((self.folder / path).read_bytes())
                title = "Put by hand" if self._commits else "initial commit"
                self._record(files, title, "", self.identity.split("/")[0])
            return list(self._commits)

    def head(self) -> Commit:
        return self.commits()[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit of `main`, or of a sha (its first seven digits do), or None."""
        commits = self.commits()
        if revision in ("main", "refs/heads/main"):
            return commits[-1]
        whole = re.fullmatch(r"[0-9a-f]{7,40}", revision)
        return next((commit for commit in commits if whole and commit.sha.startswith(revision)), None)

    def add(self, content: bytes) -> Blob:
        """Keep a content; no commit has it yet."""
        blob = _blob(content)
        path = self._objects / blob.sha256
        with self._lock:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return blob

    def stored(self, sha256: str) -> Blob | None:
        """A kept content, by its sha256."""
        path = self._objects / sha256
        return _blob(path.read_bytes()) if path.exists() else None

    def read(self, blob: Blob) -> bytes:
        return (self._objects / blob.sha256).read_bytes()

    def commit(self, changes: Iterable[tuple[str, Blob | None]], title: str, message: str, author: str) -> Commit:
        """Add a commit to `main`: these paths get these contents, or go."""
        with self._lock:
            files = dict(self.head().files)
            for path, blob in changes:
                if blob is None:
                    del files[path]
                    (self.folder / path).unlink()
                else:
                    files[path] = blob
                    (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / path).write_bytes(self.read(blob))
            return self._record(dict(sorted(files.items())), title, message, author)

    def _record(self, files: dict[str, Blob], title: str, message: str, author: str) -> Commit:
        parent = self._commits[-1].sha if self._commits else ""
        content = json.dumps([parent, title, message, [(path, blob.oid) for path, blob in files.items()]])
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), title, message, author, files)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log:
            log.write(json.dumps(asdict(commit)) + "\n")
        self._commits.append(commit)
        return commit

    def _files(self) -> dict[str, Blob]:
        """What is in the folder now; a file that has not changed is not read again."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.name in (GATED, PRIVATE) or not path.is_file():
                continue
            state = (path.stat().st_mtime_ns, path.stat().st_size)
            known, blob = self._seen.get(path, (None, None))
            if blob is None or known != state:
                blob = _blob(path.read_bytes())
                # The clock of files ticks slowly: one just written may change again and look the same.
                if time.time_ns() - state[0] > _SETTLED:
                    self._seen[path] = (state, blob)
            found[path.relative_to(self.folder).as_posix()] = blob
        return dict(sorted(found.items()))


class Repos:
    """All repositories below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[tuple[str, str], Repo] = {}
        self.lock = threading.RLock()

    def find(self, kind: str, identity: str) -> Repo | None:
        """The repository of that name, or None."""
        folder = self.root / kind / identity
        if not folder.is_dir():
            return None
        with self.lock:
            if (kind, identity) not in self._known:
                store = self.root / ".hub" / kind / identity
                self._known[kind, identity] = Repo(kind, identity, folder, store, self.lock)
            return self._known[kind, identity]

    def create(self, kind: str, identity: str, *, private: bool = False) -> Repo | None:
        """Make one, with the file that the Hub begins each with; None if there is one of that name."""
        with self.lock:
            if self.find(kind, identity):
                return None
            folder = self.root / kind / identity
            folder.mkdir(parents=True)
            if private:
                (folder / PRIVATE).touch()
            (folder / ".gitattributes").write_text(ATTRIBUTES)
            return self.find(kind, identity)

    def delete(self, repo: Repo) -> None:
        with self.lock:
            shutil.rmtree(repo.folder)
            shutil.rmtree(self.root / ".hub" / repo.kind / repo.identity, ignore_errors=True)
            self._known.pop((repo.kind, repo.identity), None)


def is_large(path: str, size: int) -> bool:
    """Whether a file is stored as a large one (LFS)."""
    suffix = Path(path).suffix.removeprefix(".").lower()
    return size > 0 and (size > _LARGE or suffix in _LFS or suffix in _PICTURES)


def name_is_valid(name: str) -> bool:
    """Whether the Hub takes it as the name of a repository."""
    if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?", name):
        return False
    return "--" not in name and ".." not in name and not name.endswith(".git")


def _blob(content: bytes) -> Blob:
    header = b"blob %d\0" % len(content)
    return Blob(hashlib.sha256(content).hexdigest(), hashlib.sha1(header + content).hexdigest(), len(content))


def _read(line: str) -> Commit:
    record = json.loads(line)
    record["files"] = {path: Blob(**blob) for path, blob in record["files"].items()}
    return Commit(**record)
