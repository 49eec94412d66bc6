"""Several labels of an image: binary cross-entropy, and the asymmetric loss for many labels of which few are there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from zoo.data import Batch
from zoo.engine.objective import Loss, Objective

# The paper's for most of its experiments: easy absences are weighed down, and the easiest left out.
GAMMA_ABSENT, GAMMA_PRESENT, MARGIN = 4.0, 0.0, 0.05

LabelLoss = Literal["bce", "asymmetric"]


class MultiLabel(Objective):
    """The loss of one batch of images with several labels each.

    Args:
        loss: "bce", binary cross-entropy; or "asymmetric" (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label
            Classification").
        smoothing: Share of each target that goes to the other answer: 1 becomes 1 - s/2, 0 becomes s/2.
    """

    def __init__(self, loss: LabelLoss = "bce", *, smoothing: float = 0.0) -> None:
        super().__init__()
        self._loss, self._smoothing = loss, smoothing

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The mean loss of a batch, whose labels are 1, 0, or NaN where it is not known, which does not count."""
        return Loss(label_loss(network(batch.images).float(), batch.labels, self._loss, self._smoothing))


def label_loss(logits: torch.Tensor, labels: torch.Tensor, loss: LabelLoss, smoothing: float) -> torch.Tensor:
    """The mean loss over the labels that are known, (B, labels) each; 0 where none is."""
    known = labels.isfinite()
    targets = labels.nan_to_num()
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / 2
    if loss == "bce":
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        losses = asymmetric(logits, targets)
    return (losses * known).sum() / known.sum().clamp(min=1)


def asymmetric(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The asymmetric loss of each label, (B, labels).

    With p the probability and p_m = max(p - m, 0): -(1 - p)^g+ log p where a label is there, -p_m^g- log(1 - p_m) where
    it is not.
    """
    present = logits.sigmoid()
    shifted = (present - MARGIN).clamp(min=0)
    there = -((1 - present) ** GAMMA_PRESENT) * functional.logsigmoid(logits)
    absent = -(shifted**GAMMA_ABSENT) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return targets * there + (1 - targets) * absent
