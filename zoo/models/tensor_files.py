"""Read and write files of tensors.

What a file claims is checked before memory is taken, and no code in it is run; a full disk is said as one.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from zoo.base.untrusted import JSON_LIMIT, parse_json, zip_members
from zoo.errors import WeightsError

Tensors = dict[str, torch.Tensor]
MOST_TENSORS = 100_000
MOST_AXES = 16  # of one tensor

_ROOM = 1 << 20  # bytes by which tensors that share memory may exceed their file
_ERRNO = re.compile(r"\(os error (\d+)\)")
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


def read_tensors(path: Path, *, sha256: str | None = None) -> Tensors:
    """Read a .safetensors or .pth file; floating tensors come back as float32.

    A .pth is a pickle, which can hold code: it is read with torch's `weights_only=True`, which makes tensors and plain
    values of it and refuses everything else.

    Args:
        path: The file. A .pth may wrap its tensors as training checkpoints do (`state_dict`, `model`).
        sha256: What the file's hash must start with; checked before anything is parsed.

    Raises:
        WeightsError: It is missing or damaged, its hash differs, or it holds more than plain tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if sha256 is not None and not (found := file_sha256(path)).startswith(sha256.lower()):
        raise WeightsError(
            f"{path} is not the file it should be",
            why=f"its sha256 is {found}, expected {sha256}",
            fix="delete it and get it again; it may be a broken download, or was replaced",
        )
    safe = path.suffix == ".safetensors"
    try:
        if safe:
            check_safetensors(path)
        elif zipfile.is_zipfile(path):
            check_zip(path)
        tensors = timm.models.load_state_dict(str(path), weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole .safetensors file", why=str(error)) from error
    except Exception as error:  # torch.load fails in as many ways as a file can be broken
        raise WeightsError(
            f"{path} cannot be read as a file of tensors",
            why=_reason(error),
            fix="save its state_dict alone, best with safetensors.torch.save_file",
        ) from error
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} holds no named tensors", fix="save model.state_dict() and nothing around it")
    if not safe:
        _check_loaded(path, tensors)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def check_safetensors(path: Path) -> None:
    """Look at the names, types and shapes in a file's header.

    That they fit the file's length, without gaps or overlap, the safetensors library makes sure of as it opens it.

    Raises:
        SafetensorError: The header is damaged, or says something else than the file's length.
        ValueError: It holds more than a network does.
        OSError: It cannot be read.
    """
    with safe_open(str(path), framework="pt") as file:
        names = file.keys()
        if len(names) > MOST_TENSORS:
            raise ValueError(f"it holds {len(names):,} tensors; at most {MOST_TENSORS:,} are read")
        for name in names:
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise ValueError(f"{name} holds numbers of type {part.get_dtype()}, which zoo does not train from")
            if len(part.get_shape()) > MOST_AXES:
                raise ValueError(f"{name} has {len(part.get_shape())} axes")


def read_metadata(path: Path) -> dict[str, Any]:
    """A .safetensors file's own metadata; values that are JSON are decoded.

    Raises:
        WeightsError: It is not a whole .safetensors file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            texts: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole .safetensors file", why=str(error)) from error
    facts: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            facts[key] = parse_json(text)
        except ValueError:
            facts[key] = text
    return facts


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: It cannot be written.
    """
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise os_error(error) from error


def os_error(error: SafetensorError) -> OSError:
    """What the operating system said, where safetensors puts it into a text of its own."""
    found = _ERRNO.search(str(error))
    number = int(found[1]) if found else None
    return OSError(number, os.strerror(number)) if number is not None else OSError(str(error))


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_zip(path: Path) -> None:
    """Refuse a .pth that unpacks into more than it is; torch stores what it saves as it is.

    Raises:
        ValueError: It is compressed, or has more members than a network has tensors.
        zipfile.BadZipFile: It is damaged.
        OSError: It cannot be read.
    """
    members = zip_members(path, MOST_TENSORS)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, as torch saves no file: it may be made to fill the memory")
    pickled = [member for member in members if member.filename.endswith("data.pkl")]
    if any(member.file_size > JSON_LIMIT for member in pickled):
        raise ValueError("its index alone is larger than 256 MiB")


def _check_loaded(path: Path, tensors: Tensors) -> None:
    """Refuse tensors that stand for more numbers than their file holds: a view repeats what it is a view of."""
    odd = next((name for name, value in tensors.items() if _is_odd(name, value)), None)
    if odd is not None:
        raise WeightsError(f"{path} cannot be used", why=f"{odd!s:.100} is not a plain tensor of numbers on the CPU")
    claimed = sum(value.nbytes for value in tensors.values())
    length = path.stat().st_size
    if claimed > 2 * length + _ROOM:
        raise WeightsError(
            f"{path} cannot be used",
            why=f"its tensors stand for {claimed / 1e9:.1f} GB, and the file has {length / 1e9:.3f} GB",
            fix="save its state_dict with safetensors.torch.save_file",
        )


def _is_odd(name: Any, value: torch.Tensor) -> bool:
    return (
        not isinstance(name, str)
        or value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
        or value.ndim > MOST_AXES
    )


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text.lower():
        named = text.partition("Unsupported globals: ")[2].partition(". No automatic")[0]
        named = ", ".join(sorted(name.strip(" []'") for name in named.split(","))) if named else ""
        return (
            f"it is no file of plain tensors{f' (it names {named[:200]})' if named else ''}; zoo reads a .pth with "
            "weights_only=True alone, which runs no code"
        )
    return text.split(". ")[0].splitlines()[0][:300] if text else type(error).__name__
