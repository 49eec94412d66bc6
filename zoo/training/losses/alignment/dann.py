"""DANN: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", JMLR 17."""

from __future__ import annotations

from zoo.training.losses.adversary import discriminator, domain_error, domain_loss, reversed_gradients, rising
from zoo.training.losses.combined import Term, TermInput, TermSizes
from zoo.training.losses.objective import Loss


class DANN(Term):
    """A discriminator learns to tell the domains apart by the features; the features learn to prevent it."""

    name = "dann"

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self.judge = discriminator(sizes.features)

    def forward(self, inputs: TermInput) -> Loss:
        """The discriminator's loss."""
        strength = rising(inputs.progress)
        source, target = (
            self.judge(reversed_gradients(seen.features, strength)) for seen in (inputs.source, inputs.views[0])
        )
        return Loss(domain_loss(source, target), {"domain_error": domain_error(source, target)})


METHOD = DANN
