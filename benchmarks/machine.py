"""What a number was measured on, without which it says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("adaptzoo", "torch", "timm", "torchvision", "fastai", "datasets", "accelerate", "typer", "rich")
_ASK = """
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name())
elif torch.backends.mps.is_available():
    print("mps")
"""


@cache
def describe_machine() -> dict[str, Any]:
    """Processor, cores, load, Python and package versions, as plain values."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,  # mean of one minute
        "accelerator": accelerator(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def accelerator() -> str | None:
    """The accelerator's name; None where there is none.

    Another process asks: torch is slow to load, and whoever only times `zoo list` needs none of it.
    """
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    return done.stdout.strip() or None


def named(machine: Mapping[str, Any]) -> str:
    """What was measured on, in words."""
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    names = [machine["cpu"], cores, machine.get("accelerator"), f"torch {machine['packages']['torch']}"]
    return ", ".join(filter(None, names))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
