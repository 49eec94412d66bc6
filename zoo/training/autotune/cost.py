"""Cost estimates: time and memory of a plan, from a few steps on random images."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from zoo.models.freezing import hold
from zoo.recipes.plan import Pace, PhasePlan, Plan
from zoo.recipes.recipe import Recipe
from zoo.training.frozen_cache.compute import chunk_size
from zoo.training.frozen_cache.fold_norms import folded_parts
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.loaded import Loaded, Work
from zoo.training.optim import make_optimizer
from zoo.training.seeds import seed_all

Network = Callable[[torch.Tensor], torch.Tensor]
_UNKNOWN = Pace(0.0)
_QUICK = 0.5  # seconds; a step estimated to be quicker is timed at its full size
_READ = 1e9  # bytes per second to read and check features; what is written is read once, too


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a phase."""

    seconds: float  # of training, including computing features
    memory: int  # bytes at the peak
    waiting: float = 0.0  # seconds of it spent waiting for images
    pace: Pace = _UNKNOWN  # how the seconds depend on the epochs


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of a phase, with and without cached features."""

    whole: Cost  # every step computes the whole network
    cached: Cost | None  # features are cached first, and every step computes what is above them; None: impossible


def estimate(
    plan: Plan, loaded: Loaded, work: Work, options: Mapping[str, Option], *, seconds_per_image: float, hidden: bool
) -> dict[str, Costs]:
    """Time one step of each phase on this machine and extrapolate, by phase; the model is left unchanged.

    Memory counts weights, gradients, optimizer state and activations; the objective's own computation is not counted.
    `options` are of the phases that could train from cached features, by name. `hidden`: other processes load images,
    so only loading that takes longer than training counts.
    """
    accelerator, input_size = loaded.accelerator, loaded.config.input_size
    recipe, chunk = work.settled, chunk_size(accelerator.device)
    train_images, val_images = len(loaded.dataset.train), len(loaded.dataset.val)
    trial = copy.deepcopy(loaded.model)
    # A norm cannot train on one image alone; if processes share its statistics, it does not have to.
    batch = max(min(2, recipe.batch), recipe.batch // accelerator.num_processes)
    costs: dict[str, Costs] = {}
    forward = _forward_seconds(trial, trial, batch, input_size, accelerator)
    copies = 1 + bool(recipe.ema)  # the best weights, and the average
    weights = copies * sum(tensor.numel() * tensor.element_size() for tensor in trial.state_dict().values())
    for phase in plan.phases:
        steps, scored = phase.steps * recipe.accumulate, phase.epochs * val_images
        images = batch + phase.unlabelled // accelerator.num_processes
        back = work.objective.backwards(phase)
        step, held = _measure(trial, trial, loaded, phase, recipe, images, input_size, backwards=back)
        loading = seconds_per_image * images
        waiting = steps * (max(0.0, loading - step) if hidden else loading)
        seconds = steps * step + waiting + scored * forward
        whole = Cost(seconds, held + weights, waiting, Pace(seconds / phase.epochs))
        cached = None
        if phase.name in options:
            option = options[phase.name]
            cut, cache, dtype = option.cut, option.plan, option.layout.torch_dtype
            suffix = cut.suffix(trial)
            step, held = _measure(trial, suffix, loaded, phase, recipe, batch, cut.shape, dtype, back)
            after = _forward_seconds(trial, suffix, batch, cut.shape, accelerator, dtype)
            first, waiting = cache.bytes / _READ, 0.0
            if option.missing:
                prefix = cut.prefix(trial, folded_parts(trial, cut))
                before = _forward_seconds(trial, prefix, chunk, input_size, accelerator)
                waiting = option.missing * (max(0.0, seconds_per_image - before) if hidden else seconds_per_image)
                first += option.missing * before + waiting
            in_memory = cache.bytes * accelerator.num_processes <= 1e9 * recipe.cache_ram_gb
            seconds = steps * step + scored * after
            view = first * train_images / (cache.views * train_images + val_images)
            pace = Pace(seconds / phase.epochs, first - cache.views * view, view, option.most)
            cached = Cost(first + seconds, held + weights + cache.bytes * in_memory, waiting, pace)
        costs[phase.name] = Costs(whole, cached)
    return costs


def _measure(
    model: nn.Module,
    network: Network,
    loaded: Loaded,
    phase: PhasePlan,
    recipe: Recipe,
    batch: int,
    input_size: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    backwards: int = 1,
) -> tuple[float, int]:
    """Seconds of one batch forward and back, and the bytes that it holds."""

    def step(images: int) -> tuple[float, int]:
        return try_step(network, images, input_size, loaded.accelerator, dtype, backwards)

    hold(model, loaded.groups, phase).train()
    optimizer = make_optimizer(recipe.optimizer, model, loaded.groups, phase)
    small = min(batch, 4)
    step(small)  # warm-up
    seconds, held = step(small)
    scale = batch / small
    if seconds * scale < _QUICK:
        # Other programs may slow a step down: the quickest of a few is what the machine can do.
        tries = [step(batch) for _ in range(4)]
        seconds, held = min(tries[1:] if small < batch else tries)
    else:
        # Part of a step, in a VGG most of it, is for the weights, whatever the number of images.
        seconds = min(seconds, step(small)[0])
        double = min(step(2 * small)[0] for _ in range(2)) if batch > small else seconds
        each = min(max(0.0, double - seconds), seconds) / small
        seconds, held = seconds + each * (batch - small), int(held * scale)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 if any("beta" in key for key in optimizer.defaults) else 1
    model.zero_grad(set_to_none=True)
    return seconds, weights + trained * (1 + moments + extra_gradients(backwards)) + held


def extra_gradients(backwards: int) -> int:
    """How many copies of all gradients are in memory besides the optimizer's."""
    return backwards + 2 if backwards > 1 else 0  # one per backward pass but the last, and three to compute with


def try_step(
    network: Network,
    batch: int,
    input_size: tuple[int, ...],
    accelerator: Accelerator,
    dtype: torch.dtype,
    backwards: int = 1,
) -> tuple[float, int]:
    """Seconds of one batch of random images forward and `backwards` times back, and the bytes held in between."""
    seed_all(0, "estimate")
    inputs = _random(batch, input_size, accelerator, dtype)
    held: dict[int, int] = {}

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):  # weights are counted apart
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    started = time.perf_counter()
    images = inputs.clone()  # the cost of reading cached features; for images it is negligible
    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor), accelerator.autocast():
        logits = network(images).float()
        loss = functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.long, device=logits.device))
    for later in reversed(range(backwards)):
        loss.backward(retain_graph=later > 0)  # type: ignore[no-untyped-call]
    _settle(accelerator)
    return time.perf_counter() - started, sum(held.values()) + images.nbytes


@torch.no_grad()
def _forward_seconds(
    model: nn.Module,
    network: Network,
    batch: int,
    input_size: tuple[int, ...],
    accelerator: Accelerator,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Seconds per image in eval mode."""
    model.eval()

    def seconds(count: int) -> float:
        images = _random(count, input_size, accelerator, dtype)
        started = time.perf_counter()
        with accelerator.autocast():
            network(images)
        _settle(accelerator)
        return (time.perf_counter() - started) / count

    count = min(batch, 8)
    seconds(count)  # warm-up
    each = seconds(count)
    return min(each, seconds(batch)) if each * batch < _QUICK else each


def _random(batch: int, input_size: tuple[int, ...], accelerator: Accelerator, dtype: torch.dtype) -> torch.Tensor:
    images = torch.randn(batch, *input_size, device=accelerator.device).to(dtype)
    return images.to(memory_format=torch.channels_last) if images.ndim == 4 else images


def _settle(accelerator: Accelerator) -> None:
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
