"""Norm statistics of pretrained weights, re-estimated on the images at hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from zoo.data import Batch
from zoo.models import layer_groups
from zoo.models.features import extract, flat
from zoo.models.freezing import evaluating


class _Compared(Exception):
    """Stops the forward pass: the rest of the network need not run."""


def tracking_norms(model: nn.Module) -> list[Any]:
    """The norm layers with running statistics, in order of registration."""
    return [module for module in model.modules() if layer_groups.is_norm(module) and _tracks(module)]


def shift(model: nn.Module, images: torch.Tensor, accelerator: Accelerator) -> float:
    """How far the contrast of (N, C, H, W) images is, at the first norm, from its running statistics.

    The root mean square, over channels, of the logarithm of the ratio of standard deviations. Photographs at the size
    of the pretraining have 0.1 or 0.2; enlarged ones, which have no fine detail, 0.5, and drawings 1. It costs the
    layers up to that norm; the model is unchanged.
    """
    shifts: list[float] = []

    def compare(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].detach().float().transpose(0, 1).flatten(1)
        now, before = values.var(1, unbiased=False) + norm.eps, norm.running_var.float() + norm.eps
        # Half the logarithm of a ratio of variances is that of standard deviations.
        shifts.append(float((0.5 * (now / before).log()).square().mean().sqrt()))
        raise _Compared

    hooks = [norm.register_forward_pre_hook(compare) for norm in tracking_norms(model)]
    try:
        with evaluating(model), torch.no_grad(), accelerator.autocast(), suppress(_Compared):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return shifts[0] if shifts else 0.0


def recalibrate(model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator) -> int:
    """Replace the running statistics of all norms by averages over these batches; returns how many images were used.

    Each norm sees the output of the ones before it, normalised by their own batch: "adaptive batch normalization" (Li
    et al. 2016, arXiv:1603.04779). Batches should be large and mix the classes; those smaller than the first are left
    out. Raises ValueError, with the statistics as before, if there are no images.
    """
    norms, images = tracking_norms(model), 0
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in _statistics(norm)}) for norm in norms]
    try:
        with evaluating(model), torch.no_grad(), accelerator.autocast():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over the batches
                norm.train()
            whole = 0
            for batch in batches:
                whole = whole or len(batch)
                if len(batch) < whole:  # the last one: statistics of few images would count as much as those of many
                    continue
                model(batch.images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True))
                images += len(batch)
        if not images:
            raise ValueError("no images to estimate norm statistics from")
    except BaseException:
        for norm, (_, statistics) in zip(norms, before, strict=True):
            for name, buffer in statistics.items():
                getattr(norm, name).copy_(buffer)
        raise
    finally:
        for norm, (momentum, _) in zip(norms, before, strict=True):
            norm.momentum = momentum
    return images


@torch.no_grad()
def features(model: Any, batches: Iterable[Batch], accelerator: Accelerator) -> tuple[torch.Tensor, torch.Tensor]:
    """The classifier's inputs (N, D) in float32, and the labels (N,); both on the CPU."""
    inputs, labels = [], []
    with evaluating(model), accelerator.autocast():
        for batch in batches:
            images = batch.images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
            inputs.append(flat(extract(model, images)).cpu())
            labels.append(batch.labels)
    return torch.cat(inputs), torch.cat(labels)


def is_better(right: Any, than: Any) -> bool:
    """Whether the first of two (N,) arrays of correct predictions is better by more than chance would often give.

    The images on which they differ decide, as in McNemar's test: the surplus must exceed its standard deviation under
    chance.
    """
    gained, lost = int((right & ~than).sum()), int((than & ~right).sum())
    return gained - lost > math.sqrt(gained + lost)


def _statistics(norm: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, buffer) for name, buffer in norm.named_buffers(recurse=False) if buffer is not None]


def _tracks(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None
