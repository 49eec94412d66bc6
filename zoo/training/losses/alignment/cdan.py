"""CDAN+E: Long et al. 2018, "Conditional Adversarial Domain Adaptation", NeurIPS."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from zoo.models.features import Seen
from zoo.training.losses.adversary import discriminator, domain_error, domain_loss, reversed_gradients, rising
from zoo.training.losses.combined import Term, TermInput, TermSizes
from zoo.training.losses.objective import Loss

LARGEST = 4096  # products of features and classes; above it they are multiplied in random directions, as in the paper
RANDOM = 1024  # such directions


class CDAN(Term):
    """A discriminator sees features times class probabilities; images weigh 1 + exp(-entropy), of mean 1 (the E)."""

    name = "cdan"
    whole = True
    of_features: torch.Tensor
    of_classes: torch.Tensor

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self._random = sizes.features * sizes.classes > LARGEST
        if self._random:
            self.register_buffer("of_features", torch.randn(sizes.features, RANDOM))
            self.register_buffer("of_classes", torch.randn(sizes.classes, RANDOM))
        self.judge = discriminator(sizes.features, RANDOM if self._random else sizes.features * sizes.classes)

    def products(self, seen: Seen) -> torch.Tensor:
        """(B, D x C), or (B, 1024) random combinations of these; no gradient flows into the probabilities."""
        shares = seen.probabilities.detach()
        if self._random:
            return (seen.features @ self.of_features) * (shares @ self.of_classes) / math.sqrt(RANDOM)
        return (shares[:, :, None] * seen.features[:, None, :]).flatten(1)

    def forward(self, inputs: TermInput) -> Loss:
        """The discriminator's loss."""
        strength, both = rising(inputs.progress), (inputs.source, inputs.views[0])
        source, target = (self.judge(reversed_gradients(self.products(seen), strength)) for seen in both)
        loss = domain_loss(source, target, (certainty(inputs.source.logits), certainty(inputs.views[0].logits)))
        return Loss(loss, {"domain_error": domain_error(source, target)})


def certainty(logits: torch.Tensor) -> torch.Tensor:
    """(B,) weights of mean 1 that rise with the certainty of a prediction, without gradients."""
    log_shares = functional.log_softmax(logits.detach(), 1)
    weights = 1.0 + torch.exp((log_shares.exp() * log_shares).sum(1))
    return weights / weights.mean()


METHOD = CDAN
