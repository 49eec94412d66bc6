"""FlexMatch: Zhang et al. 2021, "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling"."""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import distributed

from zoo.training.losses.combined import TermInput, TermSizes
from zoo.training.losses.objective import Loss
from zoo.training.losses.semi.fixmatch import FixMatch


class FlexMatch(FixMatch):
    """FixMatch with a lower threshold for classes that are learnt less well.

    With b the number of images confidently of a class, divided by the largest such number, or by the number of images
    without a confident prediction if that is larger (the warm-up), the threshold is multiplied by b / (2 - b).
    """

    name = "flexmatch"
    guessed: torch.Tensor  # of each image: the last confidently predicted class, or -1

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self._classes = sizes.classes
        self.register_buffer("guessed", torch.full((sizes.images,), -1, dtype=torch.int64))

    def forward(self, inputs: TermInput) -> Loss:
        """Cross-entropy with pseudo-labels confident enough for their class, as a mean over all images."""
        loss = super().forward(inputs)
        confidence, pseudo_labels = inputs.views[0].probabilities.detach().max(1)
        self.remember(inputs.indices, pseudo_labels, confidence >= self._threshold)
        return loss

    def threshold(self, pseudo_labels: torch.Tensor) -> torch.Tensor:
        """(B,) the confidence from which each pseudo-label counts."""
        counts = torch.bincount(self.guessed + 1, minlength=self._classes + 1)
        unsure, learnt = counts[0], counts[1:].float()
        share = learnt / torch.maximum(learnt.max(), unsure.float()).clamp(min=1)
        return self._threshold * (share / (2 - share))[pseudo_labels]

    @torch.no_grad()
    def remember(self, indices: torch.Tensor, pseudo_labels: torch.Tensor, sure: torch.Tensor) -> None:
        """Record confident pseudo-labels, also of the other processes: one alone does not see all images."""
        if distributed.is_available() and distributed.is_initialized():
            everyone = gather_object([(indices.cpu(), pseudo_labels.cpu(), sure.cpu())])
            indices, pseudo_labels, sure = (
                torch.cat([part[place] for part in everyone]).to(self.guessed.device) for place in range(3)
            )
        self.guessed[indices] = torch.where(sure, pseudo_labels, self.guessed[indices])


METHOD = FlexMatch
