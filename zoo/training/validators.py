"""Validators: scores of predictions on unlabelled images, to select epochs and methods by.

None of them sees a label. Each can be fooled: a network that predicts one class for everything is sure of it (entropy),
a consistently wrong one is as good as a right one (information), and clusters need not be classes (density).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from zoo.recipes import methods
from zoo.tasks.outputs import Outputs

VALIDATORS = methods.VALIDATORS
TEMPERATURE = 0.05  # of similarities, as in Saito et al. 2021


def validators(logits: torch.Tensor) -> dict[str, float]:
    """Entropy (nats, lower is better), information and density (nats, higher is better) of (N, C) logits in float32."""
    return {"entropy": entropy(logits), "information": information(logits), "density": density(logits)}


def with_target(scores: dict[str, float], outputs: Outputs) -> dict[str, float]:
    """The scores, and all validators if there are outputs for target images."""
    return scores if outputs.target is None else scores | validators(outputs.target)


def entropy(logits: torch.Tensor) -> float:
    """The mean entropy of the predictions, nats (Morerio et al. 2018)."""
    log_shares = functional.log_softmax(logits.double(), 1)
    return float(-(log_shares.exp() * log_shares).sum(1).mean())


def information(logits: torch.Tensor) -> float:
    """Mutual information of image and prediction, nats: high if predictions are sure, and of all classes.

    The entropy of the mean prediction minus the mean entropy of the predictions; as a validator: Musgrave et al. 2022,
    "Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation".
    """
    mean = functional.softmax(logits.double(), 1).mean(0)
    return float(-torch.special.xlogy(mean, mean).sum()) - entropy(logits)


def density(logits: torch.Tensor) -> float:
    """How densely an image's neighbours lie, nats (SND: Saito et al. 2021, "Tune it the Right Way").

    The mean entropy of each image's similarities to all others, from its class probabilities scaled to length 1.
    """
    if len(logits) < 3:
        return 0.0
    shares = functional.normalize(logits.softmax(1), dim=1)
    similar = (shares @ shares.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    log_near = similar.log_softmax(1).fill_diagonal_(0.0)  # 0 times minus infinity would be NaN
    near = log_near.exp().fill_diagonal_(0.0)
    return float(-(near * log_near).sum(1).mean())
