"""Learning rate: a range test, and a lower default for random weights without norms."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator

from zoo.errors import TrainingError
from zoo.models.freezing import hold
from zoo.models.layer_groups import is_norm
from zoo.recipes.plan import PhasePlan
from zoo.recipes.recipe import Recipe
from zoo.training.loaded import Decision, Loaded, Work
from zoo.training.optim import decays, make_optimizer
from zoo.training.seeds import seed_all

LOWEST, HIGHEST = 1e-5, 1.0  # of the head's rate
STEPS = 80
SMOOTHING = 0.9  # of the exponential average over losses


@dataclass(frozen=True, slots=True)
class RangeTest:
    """The curve of one range test, and the rate chosen from it."""

    rates: tuple[float, ...]  # head's rate at each step
    losses: tuple[float, ...]  # smoothed, nats
    chosen: float

    def record(self) -> dict[str, Any]:
        """The test as plain values."""
        return {"lr": list(self.rates), "loss": list(self.losses), "chosen": self.chosen}


def find_rate(loaded: Loaded, work: Work, phase: PhasePlan) -> RangeTest:
    """Train a copy of the model at rates that rise geometrically, with the groups' ratios kept (Smith 2017).

    The rate chosen is a tenth of the one with the lowest smoothed loss before it blows up: near the steepest descent,
    and less noisy than the steepest point itself. Model and objective are left unchanged. Raises TrainingError if the
    loss is not finite from the start.
    """
    accelerator, recipe, loader = loaded.accelerator, work.settled, work.loader
    trial = copy.deepcopy(loaded.model)
    objective = copy.deepcopy(work.objective)  # its counts and its parameters' gradients stay in the copy
    freezer = hold(trial, loaded.groups, phase)
    optimizer = make_optimizer(recipe.optimizer, trial, loaded.groups, phase)
    head = phase.groups[-1].lr or max(plan.lr for plan in phase.groups)
    freezer.train()
    rates: list[float] = []
    losses: list[float] = []
    average, lowest, epoch = 0.0, math.inf, 0
    batches = loader.epoch(epoch)
    scaler = torch.amp.GradScaler(accelerator.device.type, enabled=accelerator.mixed_precision == "fp16")
    for step in range(STEPS):
        seed_all(recipe.seed, "range test", step)
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] / head * rate
        total = torch.zeros((), device=accelerator.device)
        for _ in range(recipe.accumulate):
            batch = next(batches, None)
            if batch is None:
                epoch += 1
                batches = loader.epoch(epoch)
                batch = next(batches)
            images = batch.images.to(accelerator.device, memory_format=torch.channels_last)
            with accelerator.autocast():
                loss = objective(trial, replace(batch.to(accelerator.device), images=images), 0.0).total
            loss = loss / recipe.accumulate
            scaler.scale(loss).backward()
            total += loss.detach()
        value = float(accelerator.reduce(total, "mean"))
        if not math.isfinite(value):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        smooth = average / (1 - SMOOTHING ** (step + 1))
        rates.append(rate)
        losses.append(smooth)
        lowest = min(lowest, smooth)
        if smooth > 4 * lowest:
            break
        _share_gradients(optimizer, accelerator)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    if not losses:
        raise TrainingError(
            "the range test found no rate",
            why="the loss is not finite from the first step on",
            fix="give a rate with --lr, and try --precision fp32",
        )
    chosen = rates[losses.index(min(losses))] / 10
    return RangeTest(tuple(rates), tuple(losses), float(f"{chosen:.2g}"))


def _share_gradients(optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Average the processes' gradients: the copy is not wrapped, and each process has part of a batch."""
    for group in optimizer.param_groups if accelerator.num_processes > 1 else ():
        for parameter in group["params"]:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(own, "mean")


GENTLE = 10  # times lower than the usual rate


def from_random(recipe: Recipe, loaded: Loaded) -> Decision:
    """A lower peak rate for random weights that mostly have no normalisation.

    At the usual rate such a network (AlexNet, and VGG because of its fully connected layers, with batch norm or
    without) diverges or stands still. torchvision's own recipes give these a tenth of the rate of the others, too. A
    layer group with a norm in it counts as normalised as a whole.
    """
    if recipe.strategy != "scratch" or recipe.lr is not None or recipe.phases:
        return Decision()
    model = loaded.model
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if decays(parameter)}
    norms = [f"{name}." for name, module in model.named_modules() if is_norm(module)]
    plain = normed = 0
    for group in loaded.groups[:-1]:
        names = (*group.parameters, *group.buffers)
        weights = sum(sizes.get(name, 0) for name in group.parameters)
        if any(name.startswith(norm) for name in names for norm in norms):
            normed += weights
        else:
            plain += weights
    if plain <= normed:
        return Decision()
    rate = float(f"{recipe.preset.lr / GENTLE:.2g}")
    return Decision(
        {"lr": rate},
        f"the rate is {rate:g} and not {recipe.preset.lr:g}: most weights of this network have no normalisation, and "
        "from random values they do not learn at more; choose another with --lr",
    )
