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


class _Seen(Exception):
    """What is wanted has been seen; the rest of the network need not run."""


def tracking_norms(model: nn.Module) -> list[Any]:
    """The norm layers that keep running statistics, in the order in which they are registered."""
    return [module for module in model.modules() if layer_groups.is_norm(module) and _tracks(module)]


def shift(model: nn.Module, images: torch.Tensor, accelerator: Accelerator) -> float:
    """How much the images' contrast differs, at the first norm, from what the norm remembers of its training images.

    It costs the layers up to there. Photographs at the size of the pretraining come to 0.1 or 0.2; enlarged ones, which
    have no fine detail, to 0.5, and drawings to 1.

    Args:
        model: A model with running statistics; it stays as it is.
        images: (N, C, H, W), normalised, on the model's device.
        accelerator: The precision.

    Returns:
        The root mean square, over channels, of the logarithm of the ratio of standard deviations.
    """
    found: list[float] = []

    def look(norm: Any, given: tuple[torch.Tensor, ...]) -> None:
        values = given[0].detach().float().transpose(0, 1).flatten(1)
        now, before = values.var(1, unbiased=False) + norm.eps, norm.running_var.float() + norm.eps
        found.append(float((0.5 * (now / before).log()).square().mean().sqrt()))
        raise _Seen

    hooks = [norm.register_forward_pre_hook(look) for norm in tracking_norms(model)]
    try:
        with evaluating(model), torch.no_grad(), accelerator.autocast(), suppress(_Seen):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else 0.0


def recalibrate(model: nn.Module, batches: Iterable[Batch], accelerator: Accelerator) -> int:
    """Replace the running statistics of all norms by the averages over these batches; nothing else changes.

    Each norm sees what the ones before it, normalised by their own batch, make of the images: "adaptive batch
    normalization" (Li et al. 2016, arXiv:1603.04779).

    Args:
        model: The model on its device.
        batches: Of many images each, in an order that mixes the classes; those smaller than the first are left out.
        accelerator: Device and precision.

    Returns:
        How many images it was.

    Raises:
        ValueError: There are no images; the statistics are as they were.
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
                if len(batch) < whole:  # the last one: few images' statistics would count as much as many's
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
    """What goes into the classifier, (N, D) in float32, and the labels, (N,); both on the CPU."""
    found, labels = [], []
    with evaluating(model), accelerator.autocast():
        for batch in batches:
            images = batch.images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
            found.append(flat(extract(model, images)).cpu())
            labels.append(batch.labels)
    return torch.cat(found), torch.cat(labels)


def is_better(right: Any, than: Any) -> bool:
    """Whether one of two classifiers names more images rightly, by more than chance would often do.

    The images on which they differ decide, as in McNemar's test: the surplus must exceed one standard deviation of what
    it would be by chance.

    Args:
        right: (N,) booleans: where the one is right.
        than: The same of the other.
    """
    gained, lost = int((right & ~than).sum()), int((than & ~right).sum())
    return gained - lost > math.sqrt(gained + lost)


def _statistics(norm: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, buffer) for name, buffer in norm.named_buffers(recurse=False) if buffer is not None]


def _tracks(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None
