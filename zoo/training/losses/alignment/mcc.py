"""MCC: Jin et al. 2020, "Minimum Class Confusion for Versatile Domain Adaptation", ECCV."""

from __future__ import annotations

import torch
from torch.nn import functional

from zoo.training.losses.combined import Term, TermInput
from zoo.training.losses.objective import Loss

TEMPERATURE = 2.5


class MCC(Term):
    """Minimises how often the classifier confuses two classes on target images."""

    name = "mcc"
    whole = True

    def forward(self, inputs: TermInput) -> Loss:
        """The confusion."""
        return Loss(confusion(inputs.views[0].logits))


def confusion(logits: torch.Tensor) -> torch.Tensor:
    """The mean off-diagonal share of the rows of the class confusion matrix; (B, C) to a scalar.

    Images have weight 1 + exp(-entropy), without gradients, scaled to a mean of 1.
    """
    log_shares = functional.log_softmax(logits / TEMPERATURE, 1)
    shares = log_shares.exp()
    weights = 1.0 + torch.exp((shares * log_shares).sum(1).detach())
    with torch.autocast(logits.device.type, enabled=False):
        matrix = (shares * (weights / weights.mean())[:, None]).T @ shares
    matrix = matrix / matrix.sum(1, keepdim=True)
    return 1.0 - matrix.diagonal().mean()


METHOD = MCC
