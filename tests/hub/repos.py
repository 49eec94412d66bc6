"""Repositories as folders: `models/ORG/NAME/…` and `datasets/ORG/NAME/…` below one root."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

GATED = ".gated"  # a repository that has this file answers 403 until its terms are accepted
TIME = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Repo:
    """One repository as it is on disk now; its only revision is `main`."""

    kind: str  # "models" or "datasets"
    identity: str  # "ORG/NAME"
    folder: Path

    @cached_property
    def files(self) -> dict[str, bytes]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != GATED)
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    @property
    def gated(self) -> bool:
        return (self.folder / GATED).exists()

    @cached_property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in self.files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def has_revision(self, revision: str) -> bool:
        return revision in ("main", self.commit)

    def info(self) -> dict[str, Any]:
        return {
            "_id": hashlib.md5(self.identity.encode()).hexdigest()[:24],
            "id": self.identity,
            "author": self.identity.split("/")[0],
            "sha": self.commit,
            "lastModified": TIME,
            "createdAt": TIME,
            "private": False,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": name} for name in self.files],
        }

    def entries(self, below: str = "", *, recursive: bool = True) -> list[dict[str, Any]]:
        """What the tree endpoint lists: files, and the folders on the way to them."""
        prefix = f"{below}/" if below else ""
        rows: dict[str, dict[str, Any]] = {}
        for name, content in self.files.items():
            if not name.startswith(prefix):
                continue
            parts = name.removeprefix(prefix).split("/")
            for depth in range(1, len(parts)):
                folder = prefix + "/".join(parts[:depth])
                if depth == 1 or recursive:
                    rows[folder] = {"type": "directory", "oid": _blob(folder.encode()), "size": 0, "path": folder}
            if len(parts) == 1 or recursive:
                rows[name] = self.entry(name, content)
        return list(rows.values())

    @staticmethod
    def entry(name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "oid": _blob(content), "size": len(content), "path": name}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def find(root: Path, kind: str, identity: str) -> Repo | None:
    """The repository of that name, or None."""
    folder = root / kind / identity
    return Repo(kind, identity, folder) if folder.is_dir() else None
