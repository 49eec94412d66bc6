"""Deep CORAL: Sun and Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops."""

from __future__ import annotations

import torch

from zoo.training.losses.combined import Term, TermInput
from zoo.training.losses.objective import Loss


class CORAL(Term):
    """The distance of both domains' covariances of logits: ||C_s - C_t||^2 / (4 d^2), d the classes."""

    name = "coral"
    whole = True
    least = 2

    def forward(self, inputs: TermInput) -> Loss:
        """The distance."""
        return Loss(distance(inputs.source.logits, inputs.views[0].logits))


def distance(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The distance of the covariances of (N, d) and (M, d), as a scalar; 0 if a domain has one image."""
    if min(len(source), len(target)) < 2:
        return 0.0 * (source.sum() + target.sum())
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(values: torch.Tensor) -> torch.Tensor:
    with torch.autocast(values.device.type, enabled=False):  # halves would blur how far two of these are apart
        centred = values - values.mean(0)
        return centred.T @ centred / (len(values) - 1)


METHOD = CORAL
