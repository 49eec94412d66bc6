"""DAAN: Yu et al. 2019, "Transfer Learning with Dynamic Adversarial Adaptation Network", ICDM."""

from __future__ import annotations

import torch
from torch import nn

from zoo.training.losses.adversary import discriminator, domain_error, domain_loss, reversed_gradients, rising
from zoo.training.losses.combined import Term, TermInput, TermSizes
from zoo.training.losses.objective import Loss

MOMENTUM = 0.99  # of the averages that omega is made of
LOCAL = 65 * 1024  # units of a layer of all local discriminators together, at most: the paper's largest has 65 classes


class DAAN(Term):
    """A global discriminator as in DANN and a local one for each class; omega weighs the two.

    The local discriminator of class c gets each image's features multiplied by the probability of c. The loss is (1 -
    omega) of the global one plus omega of the mean of the local ones. The paper adds the local ones up; a sum grows
    with the number of classes, but omega should weigh equals. Omega is d_local / (d_global + d_local): towards 0 if the
    domains as a whole differ more, towards 1 if their classes do, as in the paper's text and the authors' code. The
    A-distance d is 2 (1 - 2 e), with e the discriminator's error rate as in its definition (Ben-David et al. 2007); the
    paper uses the loss instead, with which omega would leave 0 to 1. An image counts in a class's error by its
    probability. Distances are running averages; omega is a half before the first step.
    """

    name = "daan"
    distances: torch.Tensor  # global, local

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__(sizes)
        self.judge = discriminator(sizes.features)
        most = max(LOCAL // sizes.classes, 1)
        self.judges = nn.ModuleList(discriminator(sizes.features, most=most) for _ in range(sizes.classes))
        self.register_buffer("distances", torch.zeros(2))

    @property
    def omega(self) -> torch.Tensor:
        """The weight of the local discriminators, 0 to 1; a scalar."""
        whole = self.distances.sum()
        return torch.where(whole > 0, self.distances[1] / whole.clamp(min=1e-12), torch.full_like(whole, 0.5))

    def forward(self, inputs: TermInput) -> Loss:
        """The discriminators' loss."""
        omega, strength = self.omega, rising(inputs.progress)
        both = inputs.source, inputs.views[0]
        shares = [seen.probabilities.detach() for seen in both]  # weights: the classifier is not to help the judges
        turned = [reversed_gradients(seen.features, strength) for seen in both]
        source, target = (self.judge(features) for features in turned)
        whole, error = domain_loss(source, target), domain_error(source, target)
        losses, errors = [], []
        for number, judge in enumerate(self.judges):
            of_class = [share[:, number] for share in shares]
            near, far = (judge(share[:, None] * features) for share, features in zip(of_class, turned, strict=True))
            losses.append(domain_loss(near, far))
            errors.append(domain_error(near, far, (of_class[0], of_class[1])))
        local = torch.stack(losses).mean()
        self.remember(error, torch.stack(errors).mean())
        return Loss(
            (1 - omega) * whole + omega * local,
            {"omega": omega, "domain_error": error, "class_domain_error": torch.stack(errors).mean()},
        )

    @torch.no_grad()
    def remember(self, whole: torch.Tensor, local: torch.Tensor) -> None:
        """Update the running averages by the errors of one step."""
        now = (2 * (1 - 2 * torch.stack([whole, local]))).clamp(min=0)
        self.distances.mul_(MOMENTUM).add_((1 - MOMENTUM) * now)


METHOD = DAAN
