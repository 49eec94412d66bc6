"""What this machine can do, and the choices that follow from it: settled once, recorded, reused."""

from __future__ import annotations

import os
import platform
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
    """Decide device, precision and threads, and set torch's thread count.

    Raises:
        RecipeError: The recipe asks for a device or a precision that is not here.
    """
    processes = process_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    device = _best_device() if recipe.device == "auto" else recipe.device
    if device not in devices():
        raise RecipeError(
            f"there is no {device} device here",
            why=f"torch {torch.__version__} sees: {', '.join(devices())}",
            fix="leave --device out, or say --device cpu",
        )
    most = {"cpu": here, "cuda": torch.cuda.device_count(), "mps": 1}[device]
    if here > most:
        raise RecipeError(
            f"{here} processes need as many {device} devices, and there are {most} here",
            fix=f"use {most} or fewer, or add --device cpu",
        )
    precision = _best_precision(device) if recipe.precision == "auto" else recipe.precision
    if precision == "fp16" and recipe.task_weighting == "pcgrad":
        if recipe.precision != "auto":
            raise RecipeError(
                "pcgrad cannot be had in fp16",
                why="it compares the tasks' gradients before they are scaled up, and in fp16 small ones are 0 there",
                fix="use --precision fp32, or bf16 where the GPU has it",
            )
        precision = "fp32"
    if precision == "fp16" and device != "cuda":
        raise RecipeError(f"fp16 training needs CUDA, and the device is {device}", fix="use --precision bf16 or fp32")
    threads = recipe.threads or _threads_asked() or max(1, _cores() // here)
    torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()
    return Machine(device, precision, threads, processes)


def devices() -> list[str]:
    """The devices that are here, as recipes call them."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, found in there.items() if found]


def process_count() -> int:
    """How many processes one launch has started, before there is an accelerator to ask."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """This process's number among those of one launch, before there is an accelerator to ask."""
    return int(os.environ.get("RANK", "0"))


def require_equal_shares(batch_size: int, processes: int) -> None:
    """Refuse a training batch that the processes cannot share equally.

    Raises:
        RecipeError: They cannot.
    """
    if batch_size % processes:
        raise RecipeError(
            f"a batch of {batch_size} cannot be shared by {processes} processes",
            why="the batch size counts all processes, and each takes an equal part",
            fix=f"use a multiple of {processes}: --batch-size {-(-batch_size // processes) * processes}",
        )


def make_accelerator(machine: Machine) -> Accelerator:
    """The driver of devices, precision and processes for one run."""
    # accelerate keeps one state per process and refuses another precision; a second run starts afresh.
    AcceleratorState._reset_state(reset_partial_state=machine.processes == 1)
    precision = "no" if machine.precision == "fp32" else machine.precision
    # The others wait while one reads the images or computes activations; whether one is gone, its launcher sees.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(cpu=machine.device == "cpu", mixed_precision=precision, kwargs_handlers=[patience])
    torch.set_num_threads(machine.threads)  # accelerate may have chosen otherwise
    return accelerator


def environment(machine: Machine) -> dict[str, Any]:
    """What somebody else needs to know to repeat a run."""
    device = torch.cuda.get_device_name() if machine.device == "cuda" else machine.device
    return {
        "zoo": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "timm": str(timm.__version__),
        "accelerate": str(accelerate.__version__),
        "cpu": _cpu_name(),
        "cores": _cores(),
        "device": device,
        **{name: getattr(machine, name) for name in ("precision", "threads", "processes")},
    }


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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


def _threads_asked() -> int | None:
    """OMP_NUM_THREADS, as far as a person chose it: torchrun and `accelerate launch` set it to 1 by themselves."""
    if any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")):
        return None
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels, the outermost
    return min(int(first), 1024) or None if first.isdecimal() else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def _cpu_fact(name: str) -> str:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(name):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
