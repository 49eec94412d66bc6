"""Resumable states: one file each, tensors and plain values only, with a hash beside it."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from zoo.run import replacing, write_atomic

KEEP = 2  # the newest one may be damaged by the same accident that stopped the run


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, facts: dict[str, Any]) -> Path:
    """Write one state and remove the oldest ones.

    The hash file is written last: a state without one was not finished. `facts` go into it as plain values.
    """
    path = folder / f"step-{step:09d}.pt"
    with replacing(path) as temporary:
        torch.save(state, temporary)
        digest = _digest(temporary)
    write_atomic(_hash_path(path), json.dumps({"sha256": digest, "step": step, **facts}))
    for old in _steps(folder)[:-KEEP]:
        _hash_path(old).unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest undamaged state, or None, and a line about each damaged one that was passed over."""
    damaged: list[str] = []
    paths = _steps(folder)
    for path in reversed(paths):
        instead = "starting over" if path == paths[0] else "using the one before"
        try:
            expected = json.loads(_hash_path(path).read_text(encoding="utf-8"))["sha256"]
            if _digest(path) != expected:
                damaged.append(f"the checkpoint {path.name} is damaged (its hash differs); {instead}")
                continue
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state, damaged
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            damaged.append(f"the checkpoint {path.name} cannot be read ({error}); {instead}")
    return None, damaged


def checkpoint_facts(folder: Path) -> list[dict[str, Any]]:
    """The plain facts beside each kept state, oldest first; damaged ones are left out."""
    found = []
    for path in _steps(folder):
        try:
            found.append(json.loads(_hash_path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))


def _hash_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
