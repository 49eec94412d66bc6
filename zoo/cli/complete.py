"""Shell completion: names from manifests, the registry and run records, without slow imports.

A completer prints nothing, not even for a file that it cannot read. If it returns nothing, the shell completes file
names.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from zoo.base import registry
from zoo.errors import ZooError
from zoo.models import lookup
from zoo.runs import run_folder
from zoo.runs.run_folder import Run


def backbone(incomplete: str) -> list[str]:
    """Installed backbones: short names, or `plugin/backbone` once a slash is typed."""
    names = (spec.full_name if "/" in incomplete else spec.name for spec in lookup.backbones())
    return [name for name in names if name.startswith(incomplete)]


def dataset(incomplete: str) -> list[str]:
    """Named data sets, and the folders here; deeper paths are left to the shell."""
    named: list[str] = []
    with contextlib.suppress(ZooError):  # the user's registry has faults, which the command itself lists
        named += registry.load().datasets
    with contextlib.suppress(OSError):  # the folder cannot be listed
        named += [f"{path.name}/" for path in sorted(Path().iterdir()) if path.is_dir() and path.name[0] != "."]
    return [name for name in named if name.startswith(incomplete)]


def trained_model(incomplete: str) -> list[str]:
    """Finished runs, then backbones, which have pretrained heads."""
    return _runs(incomplete, finished=True) + backbone(incomplete)


def finished_run(incomplete: str) -> list[str]:
    """Finished runs, to combine or publish."""
    return _runs(incomplete, finished=True)


def unfinished_run(incomplete: str) -> list[str]:
    """Runs that `--resume` can go on with."""
    return _runs(incomplete, finished=False)


def _runs(incomplete: str, *, finished: bool) -> list[str]:
    """Run folders by path, or by bare name if one is being typed: commands find both under runs/."""
    folder, slash, _ = incomplete.rpartition("/")
    root = Path(folder or "/") if slash else Path("runs")
    found = [entry for entry in run_folder.list_runs(root) if _finished(entry) is finished]
    spelled = [f"{folder}/{entry.name}" if slash else f"runs/{entry.name}" for entry in found]
    bare = [entry.name for entry in found] if incomplete and not slash else []
    return [name for name in (*spelled, *bare) if name.startswith(incomplete)]


def _finished(entry: Run) -> bool | None:
    """Whether the run has ended; None: its record cannot be read."""
    try:
        return entry.finished
    except ZooError:
        return None
