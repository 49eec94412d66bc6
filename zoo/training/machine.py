"""The machine's devices, precision, threads and processes: settled once, recorded, reused."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import accelerate
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe
from zoo.training.memory import keep_freed_memory
from zoo.version import __version__


@dataclass(frozen=True, slots=True)
class Machine:
    """The automatic choices of one run."""

    device: str  # "cpu" | "cuda" | "mps"
    precision: str  # "fp32" | "bf16" | "fp16"
    threads: int  # CPU threads of torch in each process
    processes: int

    def record(self) -> dict[str, Any]:
        """The choices as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def settle(recipe: Recipe) -> Machine:
    """Decide device, precision and threads and set torch's thread count; raises RecipeError if one is not available."""
    processes = process_count()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # on this machine
    available = devices()
    best = next(name for name in ("cuda", "mps", "cpu") if name in available)
    device = best if recipe.device == "auto" else recipe.device
    if device not in available:
        raise RecipeError(
            f"there is no {device} device here",
            why=f"torch {torch.__version__} sees: {', '.join(available)}",
            fix="leave --device out, or say --device cpu",
        )
    most = {"cpu": local, "cuda": torch.cuda.device_count(), "mps": 1}[device]
    if local > most:
        raise RecipeError(
            f"{local} processes need {local} {device} devices, and there are {most} here",
            fix=f"use {most} or fewer, or add --device cpu",
        )
    precision = _best_precision(device) if recipe.precision == "auto" else recipe.precision
    if precision == "fp16" and recipe.task_weighting == "pcgrad":
        if recipe.precision != "auto":
            raise RecipeError(
                "pcgrad does not work in fp16",
                why="it compares the tasks' gradients before they are scaled up, and in fp16 small ones are 0 there",
                fix="use --precision fp32, or bf16 if the GPU has it",
            )
        precision = "fp32"
    if precision == "fp16" and device != "cuda":
        raise RecipeError(f"fp16 training needs CUDA, and the device is {device}", fix="use --precision bf16 or fp32")
    threads = recipe.threads or _threads_of_environment() or max(1, _cores() // local)
    torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()
    return Machine(device, precision, threads, processes)


def devices() -> list[str]:
    """The available devices, by their names in recipes."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, is_available in available.items() if is_available]


def process_count() -> int:
    """How many processes the launch started, before there is an accelerator."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """This process's index in the launch, before there is an accelerator."""
    return int(os.environ.get("RANK", "0"))


def require_equal_shares(batch_size: int, processes: int) -> None:
    """Raises RecipeError if the processes cannot share a training batch equally."""
    if batch_size % processes:
        raise RecipeError(
            f"a batch of {batch_size} cannot be shared by {processes} processes",
            why="the batch size counts all processes, and each takes an equal part",
            fix=f"use a multiple of {processes}: --batch-size {-(-batch_size // processes) * processes}",
        )


def make_accelerator(machine: Machine) -> Accelerator:
    """The accelerator, which handles devices, precision and processes for one run."""
    # accelerate keeps one state per process and refuses another precision, so a second run needs a new one.
    AcceleratorState._reset_state(reset_partial_state=machine.processes == 1)
    precision = "no" if machine.precision == "fp32" else machine.precision
    # The others wait while one reads the images or computes features; the launcher notices if one is gone.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(cpu=machine.device == "cpu", mixed_precision=precision, kwargs_handlers=[patience])
    torch.set_num_threads(machine.threads)  # accelerate may have chosen otherwise
    return accelerator


def environment(machine: Machine) -> dict[str, Any]:
    """What another user needs to know to repeat a run."""
    return {
        "zoo": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "timm": str(timm.__version__),
        "accelerate": str(accelerate.__version__),
        "cpu": _cpu_name(),
        "cores": _cores(),
        **machine.record(),
        "device": torch.cuda.get_device_name() if machine.device == "cuda" else machine.device,
    }


def _best_precision(device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        # Without these instructions bf16 is emulated, several times slower than fp32. With AVX512-BF16 alone Intel's
        # cores multiply no more of it a second than of fp32, and converting comes on top (docs/speed.md).
        able = torch.cpu.get_capabilities()
        gains = able.get("amx_bf16") or (able.get("avx512_bf16") and _cpu_fact("vendor_id") != "GenuineIntel")
        return "bf16" if gains else "fp32"
    return "fp32"


def _threads_of_environment() -> int | None:
    """OMP_NUM_THREADS if the user set it: torchrun and `accelerate launch` set it to 1 by themselves."""
    if any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")):
        return None
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels
    return min(int(outermost), 1024) or None if outermost.isdecimal() else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def _cpu_fact(name: str) -> str:
    """A field of the first processor in Linux's /proc/cpuinfo; empty on other systems."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(name)), "")
    return ""
