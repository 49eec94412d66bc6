"""Pseudo-labels: Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method"."""

from __future__ import annotations

from torch.nn import functional

from zoo.training.losses.combined import Term, TermInput
from zoo.training.losses.objective import Loss

BEGIN = 1 / 6  # of the phase: before, nothing is learnt from pseudo-labels (the paper's 100 of 600 epochs)
STRONGEST = 3.0  # weight at the end


class PseudoLabels(Term):
    """The class predicted now is the label, with a weight that rises from 0 to 3."""

    name = "pseudo"

    def forward(self, inputs: TermInput) -> Loss:
        """Weighted cross-entropy with the pseudo-labels."""
        logits = inputs.views[0].logits
        weight = STRONGEST * max(0.0, inputs.progress - BEGIN) / (1 - BEGIN)
        loss = functional.cross_entropy(logits, logits.detach().argmax(1))
        return Loss(weight * loss, {"entropy_of_guesses": loss})


METHOD = PseudoLabels
