"""Pseudo-labels: Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method"."""

from __future__ import annotations

from torch.nn import functional

from zoo.training.losses.combined import Sight, Term, TermSizes
from zoo.training.losses.objective import Loss

BEGIN = 1 / 6  # of the phase: before, nothing is learnt from guesses (the paper's 100 of 600 epochs)
STRONGEST = 3.0  # weight at the end


class PseudoLabels(Term):
    """The class that is likeliest now counts as the label, with a weight that rises from 0 to 3."""

    name = "pseudo"

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__()

    def forward(self, sight: Sight) -> Loss:
        """Weighted cross-entropy with the guesses."""
        logits = sight.views[0].logits
        weight = STRONGEST * max(0.0, sight.progress - BEGIN) / (1 - BEGIN)
        loss = functional.cross_entropy(logits, logits.detach().argmax(1))
        return Loss(weight * loss, {"entropy_of_guesses": loss})


METHOD = PseudoLabels
