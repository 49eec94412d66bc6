"""What adversarial methods share: gradients turned round, discriminators, and their loss."""

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
    """The same values; gradients come back multiplied by minus the strength (Ganin and Lempitsky 2015)."""
    turned: torch.Tensor = _Reversal.apply(values, strength)
    return turned


def rising(progress: float) -> float:
    """The strength of the adversary: 2 / (1 + exp(-10 p)) - 1, from 0 to 1 over training (Ganin et al. 2016)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def hidden(features: int) -> int:
    """Units of each layer of a discriminator: half as many as there are features, within bounds."""
    least, most = HIDDEN
    return min(max(features // 2, least), most)


def discriminator(features: int, width: int | None = None, most: int = HIDDEN[1]) -> nn.Sequential:
    """A network that says which domain images are of: (B, 1) logits, high for the target.

    Args:
        features: Of the network that is adapted.
        width: Of what it sees, (B, width); None: the features themselves.
        most: Units of a layer, at most.
    """
    units = min(hidden(features), most)
    return nn.Sequential(
        nn.Linear(width or features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1)
    )


def domain_loss(
    source: torch.Tensor, target: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """Cross-entropy of a discriminator, source = 0 and target = 1, both domains counting alike.

    Args:
        source: (N, 1) logits of source images.
        target: (M, 1) logits of target images.
        weights: (N,) and (M,), how much each image counts, mean 1 in each domain; None: all alike.
    """
    one, other = (
        functional.binary_cross_entropy_with_logits(
            logits[:, 0], torch.full_like(logits[:, 0], label), weight=None if weights is None else weights[place]
        )
        for place, (logits, label) in enumerate(((source, 0.0), (target, 1.0)))
    )
    return (one + other) / 2


@torch.no_grad()
def domain_error(
    source: torch.Tensor, target: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """The share of images whose domain a discriminator gets wrong, both domains counting alike; a scalar.

    Args:
        source: (N, 1) logits of source images.
        target: (M, 1) logits of target images.
        weights: (N,) and (M,), how much each image counts.
    """
    wrong = (source[:, 0] > 0).float(), (target[:, 0] <= 0).float()
    if weights is None:
        return (wrong[0].mean() + wrong[1].mean()) / 2
    pairs = zip(wrong, weights, strict=True)
    shares = [(miss * weight).sum() / weight.sum().clamp(min=1e-12) for miss, weight in pairs]
    return (shares[0] + shares[1]) / 2
