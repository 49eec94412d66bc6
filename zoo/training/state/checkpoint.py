"""Resumable states: one file each, tensors and plain values only, with a hash beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.base.files import replacing, write_atomic
from zoo.base.untrusted import parse_json, read_bytes
from zoo.models.tensor_files import check_zip, file_sha256

FACTS_LIMIT = 1 << 20  # bytes of what stands beside a state
KEEP = 2  # the newest one may be damaged by the same accident that stopped the run
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?\.pt")


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, needs: Mapping[str, str], keep: int = KEEP
) -> Path:
    """Write one state and remove the oldest ones.

    The hash file is written last: a state without one was not finished.

    Args:
        folder: Where to.
        step: What the file is named after. A state of the same step that is there already is not written over: it is
            needed until the new one is whole.
        state: Tensors and plain values.
        needs: The other files in the folder that the state is of no use without, and their sha256.
        keep: States that stay, the new one included.
    """
    same = [number for found, number, _ in _states(folder) if found == step]
    path = folder / (f"step-{step:09d}-{max(same) + 1}.pt" if same else f"step-{step:09d}.pt")
    with replacing(path) as temporary:
        _write(state, temporary)
        digest = file_sha256(temporary)
    write_atomic(_hash_path(path), json.dumps({"sha256": digest, "step": step, "needs": dict(needs)}))
    for _, _, old in _states(folder)[:-keep]:
        _hash_path(old).unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest undamaged state, or None, and a line about each damaged one that was passed over."""
    damaged: list[str] = []
    paths = [path for _, _, path in _states(folder)]
    for path in reversed(paths):
        instead = "starting over" if path == paths[0] else "using the one before"
        try:
            facts = parse_json(read_bytes(_hash_path(path), FACTS_LIMIT))
            fault = _fault(path, facts)
            if fault:
                damaged.append(f"the checkpoint {path.name} {fault}; {instead}")
                continue
            check_zip(path)  # a folder from elsewhere has hashes from elsewhere
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state, damaged
        except Exception as error:  # torch.load fails in as many ways as a file can be broken
            damaged.append(f"the checkpoint {path.name} cannot be read ({error}); {instead}")
    return None, damaged


def needed_files(folder: Path) -> set[str]:
    """The names of the files that the kept states are of no use without."""
    found: set[str] = set()
    for _, _, path in _states(folder):
        try:
            found.update(parse_json(read_bytes(_hash_path(path), FACTS_LIMIT))["needs"])
        except (OSError, ValueError, KeyError, TypeError):  # a damaged one needs nothing any more
            continue
    return found


def _fault(path: Path, facts: Mapping[str, Any]) -> str:
    """What is wrong with a state, or with a file that it needs; empty if nothing is."""
    if file_sha256(path) != facts["sha256"]:
        return "is damaged (its hash differs)"
    for name, digest in facts["needs"].items():
        other = path.with_name(name)
        if not other.is_file():
            return f"cannot be used ({name} is gone)"
        if file_sha256(other) != digest:
            return f"cannot be used ({name} is damaged: its hash differs)"
    return ""


def _write(state: dict[str, Any], path: Path) -> None:
    """Save through a file of Python's: of one that torch opens itself nobody learns why it could not be written."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's own, over the one that says why
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _states(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, number among those of the step, and path of each state, oldest first."""
    found = []
    for path in folder.glob("step-*.pt"):
        name = _NAME.fullmatch(path.name)
        if name:
            found.append((int(name[1]), int(name[2] or 1), path))
    return sorted(found)


def _hash_path(path: Path) -> Path:
    return path.with_suffix(".json")
