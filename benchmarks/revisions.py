"""Two revisions of this project side by side: a clone of each, and processes that see only one of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("before", "after")


@dataclass(frozen=True)
class Tree:
    """One revision, checked out."""

    side: str  # "before" | "after"
    commit: str
    path: Path

    @property
    def work(self) -> Path:
        """Where what is found out about this revision is kept."""
        return self.path.parent

    def sources(self) -> dict[str, str]:
        """The text of every module of zoo, by its path in the tree."""
        files = sorted((self.path / "zoo").rglob("*.py"))
        return {file.relative_to(self.path).as_posix(): file.read_text(encoding="utf-8") for file in files}

    def environment(self, *more: Path, **variables: str) -> dict[str, str]:
        """Variables for a process that imports this revision's zoo and plugins, and modules in other folders.

        The installed packages stay as they are: an editable install comes after all of these.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "PYTEST_"))}
        plugins = sorted(path.parent for path in self.path.glob("plugins/*/pyproject.toml"))
        found = os.pathsep.join(str(path) for path in (self.path, *plugins, *more))
        return {**kept, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", required=True, metavar="REVISION", help="the older revision, as git names it")
    parser.add_argument("--after", default="HEAD", metavar="REVISION", help="the newer one (default: HEAD)")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "runs/revisions",
        metavar="FOLDER",
        help="clones and what is finished (default: runs/revisions)",
    )
    parser.add_argument("--repository", type=Path, default=ROOT, help=argparse.SUPPRESS)


def trees(arguments: argparse.Namespace, name: str) -> list[Tree]:
    """Clone both revisions, each into a folder of its own; a clone that is there is put right.

    Args:
        arguments: What was typed.
        name: Of the clone: a tool that edits files has one that no other uses.
    """
    repository = arguments.repository.resolve()
    if arguments.after == "HEAD" and git(repository, "status", "--porcelain"):
        sys.stderr.write("what is not committed is left out\n")
    return [_clone(repository, side, getattr(arguments, side), arguments.work.resolve(), name) for side in SIDES]


def git(folder: Path, *words: str) -> str:
    """What git says, without the last line end."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n")


def _clone(repository: Path, side: str, revision: str, work: Path, name: str) -> Tree:
    commit = git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")
    tree = Tree(side, commit, work / commit[:12] / name)
    if not (tree.path / ".git").is_dir():
        tree.work.mkdir(parents=True, exist_ok=True)
        git(repository, "clone", "--quiet", "--shared", "--no-checkout", str(repository), str(tree.path))
    git(tree.path, "checkout", "--quiet", "--force", "--detach", commit)
    shared, link = repository.parent / "shared", tree.work / "shared"
    if shared.is_dir() and not link.exists():  # tests look for it beside the checkout
        link.symlink_to(shared)
    return tree
