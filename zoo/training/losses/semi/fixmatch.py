"""FixMatch: Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence"."""

from __future__ import annotations

import torch
from torch.nn import functional

from zoo.training.losses.combined import Sight, Term, TermSizes
from zoo.training.losses.objective import Loss


class FixMatch(Term):
    """What the network is sure of on a weakly augmented image, it is taught on a strongly augmented one."""

    name = "fixmatch"
    views = 2

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__()
        self._threshold = sizes.threshold

    def forward(self, sight: Sight) -> Loss:
        """Cross-entropy with sure guesses, as a mean over all images."""
        confidence, guesses = sight.views[0].probabilities.detach().max(1)
        sure = (confidence >= self.threshold(guesses)).float()
        loss = (functional.cross_entropy(sight.views[1].logits, guesses, reduction="none") * sure).mean()
        return Loss(loss, {"sure": sure.mean()})

    def threshold(self, guesses: torch.Tensor) -> torch.Tensor:
        """(B,) the confidence from which each guess counts."""
        return torch.full_like(guesses, self._threshold, dtype=torch.float32)


METHOD = FixMatch
