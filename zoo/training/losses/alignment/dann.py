"""DANN: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", JMLR 17."""

from __future__ import annotations

from zoo.training.losses.adversary import discriminator, domain_error, domain_loss, reversed_gradients, rising
from zoo.training.losses.combined import Sight, Term, TermSizes
from zoo.training.losses.objective import Loss


class DANN(Term):
    """A discriminator learns to tell the domains apart by the features, and the features learn to prevent it."""

    name = "dann"

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__()
        self.judge = discriminator(sizes.features)

    def forward(self, sight: Sight) -> Loss:
        """The discriminator's loss."""
        strength = rising(sight.progress)
        source, target = (
            self.judge(reversed_gradients(seen.features, strength)) for seen in (sight.source, sight.views[0])
        )
        return Loss(domain_loss(source, target), {"domain_error": domain_error(source, target)})


METHOD = DANN
