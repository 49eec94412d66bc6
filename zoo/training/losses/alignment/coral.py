"""Deep CORAL: Sun and Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops."""

from __future__ import annotations

import torch

from zoo.training.losses.combined import Sight, Term, TermSizes
from zoo.training.losses.objective import Loss


class CORAL(Term):
    """The covariances of both domains' logits are drawn together: ||C_s - C_t||^2 / (4 d^2), d the classes."""

    name = "coral"
    whole = True
    least = 2

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__()

    def forward(self, sight: Sight) -> Loss:
        """The distance."""
        return Loss(distance(sight.source.logits, sight.views[0].logits))


def distance(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far the covariances of (N, d) and (M, d) are apart, as a scalar; 0 where a domain has one image."""
    if min(len(source), len(target)) < 2:
        return 0.0 * (source.sum() + target.sum())
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(values: torch.Tensor) -> torch.Tensor:
    with torch.autocast(values.device.type, enabled=False):  # halves would blur how far two of these are apart
        centred = values - values.mean(0)
        return centred.T @ centred / (len(values) - 1)


METHOD = CORAL
