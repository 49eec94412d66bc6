"""Optimizers with one parameter group per layer group, and the learning-rate schedule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn

from zoo.errors import RecipeError
from zoo.models.layer_groups import Group, added
from zoo.recipes.plan import PhasePlan

_FUSED_ON = ("cpu", "cuda")  # on other devices torch decides: it was never compared there


def decays(parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: not to biases and norms, which are vectors or scalars."""
    return parameter.ndim > 1


def make_optimizer(
    name: str, model: nn.Module, groups: Sequence[Group], phase: PhasePlan, objective: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Build a phase's optimizer over the groups that train in it and the objective's own parameters.

    Each parameter group has the layer group's name under "layer_group" and its peak rate under "peak", because torch
    schedulers ignore timm's `lr_scale`. The fused kernel is used if torch has one for the device.
    """
    parameters = dict(model.named_parameters())
    plans = {plan.name: plan for plan in phase.groups}
    adapters = added(model, groups)
    trained = []
    for group in groups:
        plan = plans[group.name]
        own = () if plan.train == "adapter" else group.parameters
        names = (*own, *(name for name, of in adapters.items() if of == group.name and name in parameters))
        trained.append((plan, [parameters[name] for name in names]))
    if phase.extra is not None and objective is not None:
        trained.append((phase.extra, list(objective.parameters())))
    param_groups: list[dict[str, Any]] = []
    for plan, tensors in trained:
        if plan.frozen:
            continue
        for decayed in (True, False):
            if chosen := [tensor for tensor in tensors if decays(tensor) == decayed]:
                decay = plan.weight_decay if decayed else 0.0
                rates = {"lr": plan.lr, "peak": plan.lr, "weight_decay": decay}
                param_groups.append({"params": chosen, "layer_group": plan.name, **rates})
    return _created(name, param_groups, max(plan.lr for plan in phase.groups), next(model.parameters()).device.type)


def require(name: str) -> None:
    """Raises RecipeError if timm's factory has no optimizer of that name."""
    _created(name, [{"params": [nn.Parameter(torch.zeros(1, 1))]}], 1e-3, "cpu")


def _created(name: str, param_groups: list[dict[str, Any]], lr: float, device: str) -> torch.optim.Optimizer:
    try:
        fused = {"fused": True} if device in _FUSED_ON and _has_fused(name) else {}
        optimizer: torch.optim.Optimizer = create_optimizer_v2(param_groups, opt=name, lr=lr, **fused)
    except (ValueError, AssertionError, KeyError) as error:
        raise RecipeError(
            f"there is no optimizer named {name!r}",
            why=str(error),
            fix="for example --optimizer adamw, sgd, lamb or lion; timm.optim.list_optimizers() names them all",
        ) from error
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, phase: PhasePlan, step: int) -> dict[str, float]:
    """Set every parameter group's rate for a step of the phase (from 0); returns each layer group's rate."""
    factor = rate_factor(step, phase.steps, kind=phase.schedule, warmup=phase.warmup)
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["layer_group"]] = group["peak"] * factor
    return rates


def _has_fused(name: str) -> bool:
    """Whether torch can do a whole step of the optimizer in one kernel."""
    try:
        return "fused" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    except ValueError:  # a name with a wrapper, such as lookahead_adamw, or an unknown one
        return False


def rate_factor(step: int, steps: int, *, kind: str, warmup: float) -> float:
    """The share in (0, 1] of the peak rate for a step (from 0); `warmup` is the share of steps in which the rate rises.

    Kinds: "one-cycle" (Smith and Topin 2018: cosine up from 1/25, cosine down to 1/10,000), "cosine" (linear warm-up,
    cosine down to 0) and "constant" (linear warm-up, then 1).
    """
    position = (step + 0.5) / steps
    if position < warmup:
        rise = position / warmup
        return _cosine(1 / 25, 1.0, rise) if kind == "one-cycle" else rise
    fall = (position - warmup) / (1.0 - warmup)
    if kind == "constant":
        return 1.0
    return _cosine(1.0, 1e-4 if kind == "one-cycle" else 0.0, fall)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0
