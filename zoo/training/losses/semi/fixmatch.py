"""FixMatch: Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence"."""

from __future__ import annotations

import torch
from torch.nn import functional

from zoo.training.losses.combined import Term, TermInput, TermSizes
from zoo.training.losses.objective import Loss


class FixMatch(Term):
    """Confident predictions on a weakly augmented image are the labels of its strongly augmented view."""

    name = "fixmatch"
    views = 2

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self._threshold = sizes.threshold

    def forward(self, inputs: TermInput) -> Loss:
        """Cross-entropy with confident pseudo-labels, as a mean over all images."""
        confidence, pseudo_labels = inputs.views[0].probabilities.detach().max(1)
        sure = (confidence >= self.threshold(pseudo_labels)).float()
        loss = (functional.cross_entropy(inputs.views[1].logits, pseudo_labels, reduction="none") * sure).mean()
        return Loss(loss, {"sure": sure.mean()})

    def threshold(self, pseudo_labels: torch.Tensor) -> torch.Tensor:
        """(B,) the confidence from which each pseudo-label counts."""
        return torch.full_like(pseudo_labels, self._threshold, dtype=torch.float32)


METHOD = FixMatch
