"""What the loop asks of an objective, and what an objective may ask of the loop."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import nn

from zoo.data import Batch
from zoo.recipes.plan import GroupPlan, PhasePlan, Plan
from zoo.training.optim import decays


@dataclass(frozen=True, slots=True)
class Loss:
    """What an objective says about one batch."""

    total: torch.Tensor  # a scalar, nats: what is minimised
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)  # scalars for the log, the same names in each step
    # Of parts that are means over what not every image has: how much of it there is in this batch, 1 on average.
    amounts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def values(self) -> torch.Tensor:
        """(1 + parts + amounts,) the total, its parts times their amounts, and these, without gradients.

        So each may be averaged over the batches of a step, however much of a part is in which of them.
        """
        total = self.total.detach()
        amounts = {name: amount.detach().to(total) for name, amount in self.amounts.items()}
        parts = [part.detach().to(total) * amounts.get(name, 1.0) for name, part in self.parts.items()]
        return torch.stack([total, *parts, *amounts.values()])


class Objective(nn.Module):
    """What is minimised. A kind of it is one file in `zoo/training/losses`; the loop knows none of them by name.

    Parameters of its own (a discriminator, weights of losses) train in an optimizer group of their own, at the head's
    rate; they and its buffers are saved with every state, shared by all processes, and left out of the model that is
    published.
    """

    name = "objective"  # in the plan, and of the optimizer group
    views = 1  # of each image without a label that it wants

    def trains(self, phase: PhasePlan) -> bool:
        """Whether its own parameters train in a phase; they must then take part in every loss of it."""
        return True

    def unlabelled(self, phase: PhasePlan) -> int:
        """Images without labels that it wants beside each labelled one in a phase, all views counted; 0: none."""
        return 0

    def complete(self, phase: PhasePlan) -> bool:
        """Whether all of it takes part in a phase. No epoch before the first such phase can be the one that is kept."""
        return True

    def needs_images(self, phase: PhasePlan) -> str:
        """Why a phase cannot train from kept activations; empty where it can."""
        return ""

    def backwards(self, phase: PhasePlan) -> int:
        """How many times a batch goes back through the network in a phase."""
        return 1

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch.

        How much an image counts must not depend on the others beside it: a step's batch may be cut into parts. What
        compares the images of a batch with each other cannot keep to that; its terms say so (`Term.whole` in
        `losses/combined`), and the plan tells where a batch is cut. So does PCGrad.

        Args:
            network: Takes images (or kept activations), gives (B, classes) logits.
            batch: On the network's device.
            progress: How much of the phase is done, 0 to 1.
        """
        raise NotImplementedError


class Joined(nn.Module):
    """A network and its objective as one module, called once a batch: so processes can share the gradients of both."""

    def __init__(self, network: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        found: Loss = self.objective(self.network, batch, progress)
        return found


def with_objective(plan: Plan, objective: Objective, batch: int) -> Plan:
    """The plan with what an objective trains and takes besides.

    Args:
        plan: The plan.
        objective: What is minimised.
        batch: Labelled images in a batch.
    """
    own = list(objective.parameters())

    def settled(phase: PhasePlan) -> PhasePlan:
        extra = None
        if own and objective.trains(phase):
            head = phase.groups[-1]
            extra = GroupPlan(
                name=objective.name,
                params=sum(tensor.numel() for tensor in own),
                undecayed=sum(tensor.numel() for tensor in own if not decays(tensor)),
                lr=head.lr or max(phase.rates.values()),
                weight_decay=head.weight_decay or max(group.weight_decay for group in phase.groups),
                train="all",
                norm="none",
            )
        return replace(phase, extra=extra, unlabelled=batch * objective.unlabelled(phase), views=objective.views)

    begun = accumulate(map(objective.complete, plan.phases), operator.or_)
    phases = (replace(settled(phase), eligible=after) for phase, after in zip(plan.phases, begun, strict=True))
    return replace(plan, phases=tuple(phases))
