"""What `golden` compares: every tensor and every value that a case leaves behind, but for what is in `IGNORED`."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

# Places, written `FILE: KEY`, where two runs of one revision differ, and why. `*` stands for any text.
IGNORED = (
    ("*: *seconds", "a time, or an estimate made from times"),
    ("*: *seconds.*", "times by part"),
    ("*: *images_per_second", "a rate made from times"),
    ("*: *data_wait", "how long training will wait for images, estimated from times"),
    ("*: position.waited", "how long training waited for images until a checkpoint"),
    ("*: *created", "when a run began"),
    ("comparison/*: *memory_bytes", "a process's memory, as measured"),
    ("compare.out: *memory_bytes", "the same"),
    ("comparison/*: *pareto*", "who is quickest and smallest, by these measurements"),
    ("compare.out: *pareto*", "the same"),
    ("*: id", "a run's random identifier"),
    ("*: *.members.*.id", "those of members"),
    ("*: *.candidates.*.id", "the same"),
    ("*: files.members/*/config.json", "hashes of files with them"),
    ("*config.json: zoo.run", "the same identifier in a model's configuration"),
    ("*: files.config.json", "a hash of a file with that identifier; the file itself is compared"),
    ("*: files.run.json", "the same for the record"),
    ("push.out: files.*.sha256", "the same for what is published"),
    ("push.out: files.*.bytes", "the size of files with times in them"),
)

WORDS = ("*: *notes.*",)  # places of sentences for people: a change is shown, and does not make a case differ

ABSENT = "absent"
_READ = (".safetensors", ".json", ".jsonl", ".csv", ".out")  # of other files (pages, cards) the name is compared

Values = dict[str, Any]  # key -> a plain value or a tensor
Files = dict[str, Values]  # path within a case -> what is in the file
Difference = dict[str, Any]  # where, before, after


def read(folder: Path, roots: Mapping[str, str]) -> Files:
    """Everything in a folder that a case was run in, without what is ignored.

    Args:
        folder: The folder.
        roots: Absolute paths that differ between two runs -> what they are called instead.
    """
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not ignored(f"{name}: "):
            values = dict(_values(path)) if path.suffix in _READ else {}
            named = {_renamed(key, roots): _renamed(value, roots) for key, value in values.items()}
            files[name] = {key: value for key, value in named.items() if not ignored(f"{name}: {key}")}
    return files


def ignored(place: str) -> bool:
    """Whether a place is in the list."""
    return any(fnmatchcase(place, pattern) for pattern, _ in IGNORED)


def worded(place: str) -> bool:
    """Whether a place holds a sentence for people."""
    return any(fnmatchcase(place, pattern) for pattern in WORDS)


def differences(before: Mapping[str, Values], after: Mapping[str, Values]) -> list[Difference]:
    """Where two runs differ; a file that only one has is one difference."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        mine, theirs = before.get(name), after.get(name)
        if mine is None or theirs is None:
            found.append(_difference(name, *("there" if side is not None else ABSENT for side in (mine, theirs))))
            continue
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            one, other = mine.get(key, ABSENT), theirs.get(key, ABSENT)
            if not same(one, other):
                found.append(_difference(f"{name}: {key}", *_shown(one, other)))
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the bit: 1 is not 1.0, 0.0 is not -0.0, NaN is NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bytes(one), _bytes(other))
    return type(one) is type(other) and repr(one) == repr(other)


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as one level: `plan.phases.0.name`. Empty ones stay as they are."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flattened(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and value:
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{key}.{number}" if key else str(number))
    else:
        yield key, value


def write_checkpoints(folder: Path, to: Path) -> None:
    """Write down what is in every checkpoint, a digest for each tensor: the files take a hundred times the room."""
    found = {}
    for path in sorted(folder.rglob("*.*")):
        if path.suffix == ".pt":
            state = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix == ".safetensors":
            state = dict(_tensors(path))
        else:
            continue
        found[path.relative_to(folder).as_posix()] = {key: _digest(value) for key, value in flattened(state)}
    to.write_text(json.dumps(found), encoding="utf-8")


def read_checkpoints(path: Path) -> Files:
    """What `write_checkpoints` wrote, without what is ignored."""
    found: Files = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: {key: value for key, value in values.items() if not ignored(f"{name}: {key}")}
        for name, values in found.items()
    }


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        yield from _tensors(path)
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        yield from flattened(list(csv.DictReader(text.splitlines())))
    elif path.suffix == ".jsonl":
        yield from flattened([json.loads(line) for line in text.splitlines()])
    else:
        yield from flattened(json.loads(text))


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    with safe_open(path, framework="pt") as file:
        for key, text in (file.metadata() or {}).items():
            yield f"metadata.{key}", text
        for key in file.keys():  # noqa: SIM118  # it is no mapping
            yield key, file.get_tensor(key)


def _renamed(value: Any, roots: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in roots.items():
            value = value.replace(path, name)
    return value


def _difference(where: str, before: Any, after: Any) -> Difference:
    return {"where": where, "before": before, "after": after}


def _shown(one: Any, other: Any) -> tuple[Any, Any]:
    """Two values that differ, in words: of tensors what they are, and the first place where they differ."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return tuple(_kind(value) if isinstance(value, torch.Tensor) else value for value in (one, other))  # type: ignore[return-value]
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return _kind(one), _kind(other)
    size = one.element_size()
    unlike = (_bytes(one) != _bytes(other)).view(-1, size).any(1).nonzero().flatten()
    place, count = int(unlike[0]), f"{len(unlike)} of {one.numel()} differ"
    return tuple(f"{_kind(each)}[{place}] = {each.flatten()[place].item()!r} ({count})" for each in (one, other))  # type: ignore[return-value]


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _digest(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return f"{_kind(value)} {hashlib.sha256(_bytes(value).numpy().tobytes()).hexdigest()[:16]}"
