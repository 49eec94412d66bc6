"""Domain-adversarial building blocks: gradient reversal, discriminators, and their loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

HIDDEN = (256, 1024)  # units of a discriminator's two layers, at least and at most; the papers have 1024 for 2048


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor, strength: float) -> torch.Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.strength * gradients[0], None


def reversed_gradients(values: torch.Tensor, strength: float) -> torch.Tensor:
    """The same values; gradients are multiplied by minus the strength (Ganin and Lempitsky 2015)."""
    reversed_: torch.Tensor = _Reversal.apply(values, strength)
    return reversed_


def rising(progress: float) -> float:
    """The strength of the adversary: 2 / (1 + exp(-10 p)) - 1, from 0 to 1 over training (Ganin et al. 2016)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def hidden(features: int) -> int:
    """Units of each layer of a discriminator: half the number of features, within bounds."""
    least, most = HIDDEN
    return min(max(features // 2, least), most)


def discriminator(features: int, width: int | None = None, most: int = HIDDEN[1]) -> nn.Sequential:
    """A domain classifier: (B, width or features) -> (B, 1) logits, high for the target; `most` bounds each layer."""
    units = min(hidden(features), most)
    return nn.Sequential(
        nn.Linear(width or features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1)
    )


def domain_loss(
    source: torch.Tensor, target: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """Cross-entropy of (N, 1) source logits against 0 and (M, 1) target logits against 1; domains have equal weight.

    `weights` are (N,) and (M,), of mean 1 in each domain; None weights all images equally.
    """
    one, other = (
        functional.binary_cross_entropy_with_logits(logits[:, 0], torch.full_like(logits[:, 0], label), weight)
        for logits, label, weight in zip((source, target), (0.0, 1.0), weights or (None, None), strict=True)
    )
    return (one + other) / 2


@torch.no_grad()
def domain_error(
    source: torch.Tensor, target: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """The discriminator's error rate, a scalar; arguments as in `domain_loss`, domains have equal weight."""
    wrong = (source[:, 0] > 0).float(), (target[:, 0] <= 0).float()
    if weights is None:
        return (wrong[0].mean() + wrong[1].mean()) / 2
    one, other = (
        (errors * weight).sum() / weight.sum().clamp(min=1e-12) for errors, weight in zip(wrong, weights, strict=True)
    )
    return (one + other) / 2
