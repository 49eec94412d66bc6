"""Write tensors into a file; a full disk is said as one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

_ERRNO = re.compile(r"\(os error (\d+)\)")


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
