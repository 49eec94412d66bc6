"""Inference cost of a network (FLOPs, images per second), and peak memory of a process."""

from __future__ import annotations

import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_BATCH = 32
_SECONDS = 1.0  # of timing, at least
_PASSES = 5  # timed, at least


def flops(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Floating-point operations for one image (C, H, W), a multiply-add counted as two.

    Convolutions and matrix products are counted (torch's FlopCounterMode); norms, activations and pooling are not.
    """
    training = model.training
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *input_size, device=device))
    model.train(training)
    return int(counter.get_total_flops())


@torch.no_grad()
def images_per_second(model: nn.Module, input_size: tuple[int, int, int]) -> float:
    """Images (C, H, W) per second through the network in eval mode and float32, without reading them."""
    device = next(model.parameters()).device
    images = torch.randn(_BATCH, *input_size, device=device).to(memory_format=torch.channels_last)
    for _ in range(2):  # to warm up
        model(images)
    taken: list[float] = []
    while sum(taken) < _SECONDS or len(taken) < _PASSES:
        _wait(device)
        started = time.perf_counter()
        model(images)
        _wait(device)
        taken.append(time.perf_counter() - started)
    return _BATCH / statistics.median(taken)


def peak_memory(device: str) -> int:
    """Peak bytes of this process so far: reserved by torch on the GPU, or else resident in host memory."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    if sys.platform == "linux":
        # Not getrusage: a process inherits the peak of its parent there.
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
