"""Tensor files: .safetensors and .pth, read with limits on memory and without running code."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
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

_MARGIN = 1 << 20  # bytes that tensors with shared memory may have beyond their file
_ERRNO = re.compile(r"\(os error (\d+)\)")
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


def read_tensors(path: Path, *, sha256: str | None = None) -> Tensors:
    """Read a .safetensors or .pth file; floating tensors become float32.

    A .pth, which may wrap its tensors as checkpoints do (`state_dict`, `model`), is a pickle: `weights_only=True`
    refuses code. Raises WeightsError if the file is missing, damaged or holds more than plain tensors, or, before
    anything is parsed, if its hash does not start with `sha256`.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if sha256 is not None and not (actual := file_sha256(path)).startswith(sha256.lower()):
        why = f"its sha256 is {actual}, expected {sha256}"
        fix = "delete it and get it again; it may be a broken download, or was replaced"
        raise WeightsError(f"{path} is not the file it should be", why=why, fix=fix)
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
        fix = "save its state_dict alone, best with safetensors.torch.save_file"
        raise WeightsError(f"{path} cannot be read as a file of tensors", why=_reason(error), fix=fix) from error
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} holds no named tensors", fix="save model.state_dict() and nothing around it")
    if not safe:
        _check_loaded(path, tensors)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def check_safetensors(path: Path) -> None:
    """Check the names, types and shapes in a file's header; the library checks that they fit the file's length.

    Raises SafetensorError if the header is damaged or does not fit, ValueError if it holds more than a network does,
    OSError if it cannot be read.
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
    """A .safetensors file's metadata, with JSON values decoded; WeightsError if the file is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            texts: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole .safetensors file", why=str(error)) from error
    facts: dict[str, Any] = {}
    for key, text in texts.items():
        facts[key] = text
        with suppress(ValueError):
            facts[key] = parse_json(text)
    return facts


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; OSError if that fails."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise os_error(error) from error


def os_error(error: SafetensorError) -> OSError:
    """The operating system's error, which safetensors turns into a text, so that a full disk is reported as one."""
    match = _ERRNO.search(str(error))
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else OSError(str(error))


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_zip(path: Path) -> None:
    """Raise ValueError if a .pth is compressed, as torch saves none, or has more members than a network has tensors.

    Raises zipfile.BadZipFile if it is damaged, OSError if it cannot be read.
    """
    members = zip_members(path, MOST_TENSORS)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, as torch saves no file: it may be made to fill the memory")
    if any(member.file_size > JSON_LIMIT for member in members if member.filename.endswith("data.pkl")):
        raise ValueError("its index alone is larger than 256 MiB")


def _check_loaded(path: Path, tensors: Tensors) -> None:
    """Raise WeightsError for tensors with more numbers than their file holds: a view repeats its base."""
    odd = next((name for name, value in tensors.items() if _is_odd(name, value)), None)
    if odd is not None:
        raise WeightsError(f"{path} cannot be used", why=f"{odd!s:.100} is not a plain tensor of numbers on the CPU")
    claimed = sum(value.nbytes for value in tensors.values())
    length = path.stat().st_size
    if claimed > 2 * length + _MARGIN:
        why = f"its tensors stand for {claimed / 1e9:.1f} GB, and the file has {length / 1e9:.3f} GB"
        fix = "save its state_dict with safetensors.torch.save_file"
        raise WeightsError(f"{path} cannot be used", why=why, fix=fix)


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
        named = ", ".join(sorted(name.strip(" []'") for name in named.split(",")))[:200]
        what = f"it is not a file of plain tensors{f' (it names {named})' if named else ''}"
        return f"{what}; zoo reads a .pth with weights_only=True alone, which runs no code"
    return text.split(". ")[0].splitlines()[0][:300] if text else type(error).__name__
