"""Several labels of an image: binary cross-entropy, and the asymmetric loss for many labels of which few are there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from zoo.data import Batch
from zoo.tasks.multilabel import Each, cross_entropy, known_loss
from zoo.tasks.schema import LabelLoss
from zoo.training.losses.objective import Loss, Objective

# The paper's for most of its experiments: easy absences are weighed down, and the easiest left out.
GAMMA_ABSENT, MARGIN = 4, 0.05


class MultiLabel(Objective):
    """The loss of one batch of images with several labels each.

    Args:
        loss: "bce", binary cross-entropy; or "asymmetric" (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label
            Classification").
        smoothing: Share of each target that goes to the other answer, see `known_loss`.
        share: Share of the training images' labels that are known.
    """

    def __init__(self, loss: LabelLoss = "bce", *, smoothing: float = 0.0, share: float = 1.0) -> None:
        super().__init__()
        self._loss, self._smoothing, self._share = LOSSES[loss], smoothing, share

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of a batch, whose labels are 1, 0, or NaN where it is not known, which does not count.

        The mean is over as many labels as are known in such a batch on average, not in this one: a label would count
        more where others beside it are not known.
        """
        mean = known_loss(network(batch.images).float(), batch.labels, self._loss, self._smoothing)
        return Loss(mean * batch.labels.isfinite().float().mean() / self._share)


def asymmetric(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The asymmetric loss of each label, (B, labels).

    With p the probability and p_m = max(p - m, 0): -log p where a label is there, which the paper weighs by
    (1 - p)^g+ with g+ = 0; -p_m^g- log(1 - p_m) where it is not.
    """
    shifted = (logits.sigmoid() - MARGIN).clamp(min=0)
    absent = -(shifted**GAMMA_ABSENT) * torch.log1p(-shifted)
    return -targets * functional.logsigmoid(logits) + (1 - targets) * absent


LOSSES: dict[LabelLoss, Each] = {"bce": cross_entropy, "asymmetric": asymmetric}
