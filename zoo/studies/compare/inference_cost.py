"""What a network costs to use, and what a process has used."""

from __future__ import annotations

import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_SECONDS = 1.0  # of timing, at least
_PASSES = 5  # timed, at least


def flops(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's way through the network, a multiply-add counted as two.

    Convolutions and matrix products are counted (torch's FlopCounterMode); norms, activations and pooling are not.

    Args:
        model: The network.
        input_size: (C, H, W), pixels.
    """
    training = model.training
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *input_size, device=device))
    model.train(training)
    return int(counter.get_total_flops())


@torch.no_grad()
def images_per_second(model: nn.Module, input_size: tuple[int, int, int], batch: int = 32) -> float:
    """How many images a second go through the network in float32, as in `zoo predict`; reading them is not in it.

    Args:
        model: The network, on its device, in eval mode.
        input_size: (C, H, W), pixels.
        batch: Images at once.
    """
    device = next(model.parameters()).device
    images = torch.randn(batch, *input_size, device=device).to(memory_format=torch.channels_last)
    for _ in range(2):  # the first passes pay for what later ones find ready
        model(images)
    taken: list[float] = []
    while sum(taken) < _SECONDS or len(taken) < _PASSES:
        _wait(device)
        started = time.perf_counter()
        model(images)
        _wait(device)
        taken.append(time.perf_counter() - started)
    return batch / statistics.median(taken)


def peak_memory(device: str) -> int:
    """Bytes at this process's peak so far: on a GPU what torch reserved there, elsewhere all that the process held."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    if sys.platform == "linux":
        # Not getrusage: there a process starts with the peak of the one that started it.
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
