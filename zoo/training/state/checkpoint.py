"""Resumable states: one file each of tensors and plain values, with a hash file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from zoo.base.files import replacing, write_atomic
from zoo.base.untrusted import parse_json, read_bytes
from zoo.models.tensor_files import check_zip, file_sha256

FACTS_LIMIT = 1 << 20  # bytes of a state's hash file
KEEP = 2  # the newest one may be damaged by the same accident that stopped the run
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?\.pt")


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, needs: Mapping[str, str], keep: int = KEEP
) -> Path:
    """Write one state, then its hash file (a state without one is unfinished), and remove all but the newest `keep`.

    A state of the same step stays until the new one is complete. `needs` are the files it depends on and their sha256.
    """
    same = [number for other, number, _ in _states(folder) if other == step]
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
    """The newest undamaged state, or None, and a line about each damaged one that was skipped."""
    damaged: list[str] = []
    paths = [path for _, _, path in _states(folder)]
    for path in reversed(paths):
        instead = "starting over" if path == paths[0] else "using the one before"
        try:
            facts = parse_json(read_bytes(_hash_path(path), FACTS_LIMIT))
            if fault := _fault(path, facts):
                damaged.append(f"the checkpoint {path.name} {fault}; {instead}")
                continue
            check_zip(path)  # a folder from elsewhere has hashes from elsewhere
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state, damaged
        except Exception as error:  # torch.load raises all kinds of errors for broken files
            damaged.append(f"the checkpoint {path.name} cannot be read ({error}); {instead}")
    return None, damaged


def needed_files(folder: Path) -> set[str]:
    """The names of the files that the saved states depend on."""
    names: set[str] = set()
    for _, _, path in _states(folder):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one needs nothing any more
            names.update(parse_json(read_bytes(_hash_path(path), FACTS_LIMIT))["needs"])
    return names


def _fault(path: Path, facts: Mapping[str, Any]) -> str:
    """What is wrong with a state or a file that it needs; empty if nothing is."""
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
    """Save through a Python file: torch's own hides why a file could not be written."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's own, caused by the one that says why
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _states(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, number within the step, and path of each state, oldest first."""
    names = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.pt"))
    return sorted((int(name[1]), int(name[2] or 1), path) for name, path in names if name)


def _hash_path(path: Path) -> Path:
    return path.with_suffix(".json")
