"""FlexMatch: Zhang et al. 2021, "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling"."""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import distributed

from zoo.training.losses.combined import Sight, TermSizes
from zoo.training.losses.objective import Loss
from zoo.training.losses.semi.fixmatch import FixMatch


class FlexMatch(FixMatch):
    """FixMatch with a lower threshold for classes that are learnt less well.

    With b the number of images that are surely of a class, divided by the largest such number, or while it is larger by
    the number of images that are not sure yet (the warm-up), the threshold is multiplied by b / (2 - b).
    """

    name = "flexmatch"
    guessed: torch.Tensor  # of each image: the last class that the network was sure of, or -1

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self._classes = sizes.classes
        self.register_buffer("guessed", torch.full((sizes.images,), -1, dtype=torch.int64))

    def forward(self, sight: Sight) -> Loss:
        """Cross-entropy with guesses that are sure enough for their class, as a mean over all images."""
        loss = super().forward(sight)
        confidence, guesses = sight.views[0].probabilities.detach().max(1)
        self.remember(sight.indices, guesses, confidence >= self._threshold)
        return loss

    def threshold(self, guesses: torch.Tensor) -> torch.Tensor:
        """(B,) the confidence from which each guess counts."""
        counts = torch.bincount(self.guessed + 1, minlength=self._classes + 1)
        unsure, learnt = counts[0], counts[1:].float()
        share = learnt / torch.maximum(learnt.max(), unsure.float()).clamp(min=1)
        return self._threshold * (share / (2 - share))[guesses]

    @torch.no_grad()
    def remember(self, indices: torch.Tensor, guesses: torch.Tensor, sure: torch.Tensor) -> None:
        """Keep the sure guesses, those of the other processes too: one alone does not see all images."""
        if distributed.is_available() and distributed.is_initialized():
            mine = [(indices.cpu(), guesses.cpu(), sure.cpu())]
            everyone = gather_object(mine)
            indices, guesses, sure = (
                torch.cat([part[place] for part in everyone]).to(self.guessed.device) for place in range(3)
            )
        self.guessed[indices] = torch.where(sure, guesses, self.guessed[indices])


METHOD = FlexMatch
