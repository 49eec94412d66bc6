"""What a plan will cost, from a few steps on made-up images."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from zoo.engine.optim import make_optimizer
from zoo.engine.randomness import seed_all
from zoo.groups import Freezer, Group
from zoo.planning import PhasePlan, Plan
from zoo.recipe import Recipe

_QUICK = 0.5  # seconds; a step that looks quicker than this is timed at its full size


def estimate(
    plan: Plan,
    model: nn.Module,
    groups: Sequence[Group],
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    input_size: tuple[int, int, int],
    choosing_images: int,
    seconds_per_image: float,
) -> tuple[float, int]:
    """Time one step of each phase on this machine and extrapolate; the model itself is left untouched.

    Args:
        plan: The plan.
        model: The model on its device.
        groups: Its layer groups.
        recipe: Batch size, accumulation, EMA.
        accelerator: Gives device and precision.
        input_size: (C, H, W), pixels.
        choosing_images: Images evaluated after each epoch.
        seconds_per_image: Measured time to load one training image.

    Returns:
        Training time in seconds, and peak memory in bytes of weights, gradients, optimizer state and activations.
    """
    trial = copy.deepcopy(model)
    batch = max(1, recipe.batch_size // accelerator.num_processes)
    seconds, memory = 0.0, 0
    forward = _forward_seconds(trial, batch, input_size, accelerator)
    for phase in plan.phases:
        step, held = _measure(trial, groups, phase, recipe, batch, input_size, accelerator)
        data = seconds_per_image * recipe.batch_size
        seconds += phase.steps * recipe.accumulate * (step + data) + phase.epochs * choosing_images * forward
        memory = max(memory, held)
    copies = 1 + bool(recipe.ema)  # the best weights, and the average
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return seconds, memory + copies * weights


def _measure(
    model: nn.Module,
    groups: Sequence[Group],
    phase: PhasePlan,
    recipe: Recipe,
    batch: int,
    input_size: tuple[int, int, int],
    accelerator: Accelerator,
) -> tuple[float, int]:
    """Seconds of one batch forward and back, and the bytes that it holds."""
    Freezer(model, groups, phase.frozen, phase.fixed_norm).train()
    optimizer = make_optimizer(recipe.optimizer, model, groups, phase)
    small = min(batch, 4)
    _step(model, small, input_size, accelerator)  # the first one pays for what later ones find ready
    seconds, held = _step(model, small, input_size, accelerator)
    scale = batch / small
    if seconds * scale < _QUICK:
        # Another program may slow one step down: the quickest of a few is what the machine can do.
        tries = [_step(model, batch, input_size, accelerator) for _ in range(4)]
        seconds, held = min(tries[1:] if small < batch else tries)
    else:
        seconds, held = min(seconds, _step(model, small, input_size, accelerator)[0]) * scale, int(held * scale)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 if any("beta" in key for key in optimizer.defaults) else 1
    model.zero_grad(set_to_none=True)
    return seconds, weights + trained * (1 + moments) + held


def _step(
    model: nn.Module, batch: int, input_size: tuple[int, int, int], accelerator: Accelerator
) -> tuple[float, int]:
    seed_all(0, "estimate")
    images = torch.randn(batch, *input_size, device=accelerator.device).to(memory_format=torch.channels_last)
    held: dict[int, int] = {}

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):  # weights are counted apart
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    started = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor), accelerator.autocast():
        logits = model(images).float()
        loss = functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.long, device=logits.device))
    loss.backward()  # type: ignore[no-untyped-call]
    _settle(accelerator)
    return time.perf_counter() - started, sum(held.values()) + images.nbytes


@torch.no_grad()
def _forward_seconds(model: nn.Module, batch: int, input_size: tuple[int, int, int], accelerator: Accelerator) -> float:
    """Seconds per image in eval mode."""
    model.eval()
    count = min(batch, 8)
    images = torch.zeros(count, *input_size, device=accelerator.device).to(memory_format=torch.channels_last)
    for _ in range(2):
        started = time.perf_counter()
        with accelerator.autocast():
            model(images)
        _settle(accelerator)
    return (time.perf_counter() - started) / count


def _settle(accelerator: Accelerator) -> None:
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
