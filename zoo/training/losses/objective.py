"""Objectives: the interface between the loop and what it minimises."""

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
    """An objective's result for one batch."""

    total: torch.Tensor  # a scalar, nats: what is minimised
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)  # scalars for the log, the same names in each step
    # For parts that are means over targets that not every image has: their number in this batch, 1 on average.
    amounts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def values(self) -> torch.Tensor:
        """(1 + parts + amounts,): the total, the parts times their amounts, and the amounts, without gradients.

        Such products may be averaged over the batches of a step, however much of a part is in which of them.
        """
        total = self.total.detach()
        amounts = {name: amount.detach().to(total) for name, amount in self.amounts.items()}
        parts = [part.detach().to(total) * amounts.get(name, 1.0) for name, part in self.parts.items()]
        return torch.stack([total, *parts, *amounts.values()])


class Objective(nn.Module):
    """What is minimised; each kind is one file in `zoo/training/losses`, and the loop names none of them.

    Its own parameters (a discriminator, weights of losses) train in an optimizer group of their own, at the head's
    rate; they and its buffers are saved with every state, shared by all processes, and left out of the published model.
    """

    name = "objective"  # in the plan, and of the optimizer group
    views = 1  # of each unlabelled image

    def trains(self, phase: PhasePlan) -> bool:
        """Whether its own parameters train in a phase; they must then take part in each of its losses."""
        return True

    def unlabelled(self, phase: PhasePlan) -> int:
        """Unlabelled images for each labelled one in a phase, all views counted; 0: none."""
        return 0

    def complete(self, phase: PhasePlan) -> bool:
        """Whether all of it takes part in a phase. No epoch before the first such phase can be the best."""
        return True

    def needs_images(self, phase: PhasePlan) -> str:
        """Why a phase cannot train from cached features; empty if it can."""
        return ""

    def backwards(self, phase: PhasePlan) -> int:
        """How many backward passes a batch takes in a phase."""
        return 1

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch; the network takes images (or cached features) and returns (B, classes) logits.

        The weight of an image must not depend on the others in the batch: a step's batch may be cut into parts. A
        method that compares a batch's images cannot keep to that; it says so (`Term.whole` in `losses/combined`), and
        the plan notes when a batch is cut. So does PCGrad. `progress` is the share of the phase that is done, 0 to 1.
        """
        raise NotImplementedError


class Joined(nn.Module):
    """A network and its objective as one module, called once a batch, so that processes share the gradients of both."""

    def __init__(self, network: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        loss: Loss = self.objective(self.network, batch, progress)
        return loss


def with_objective(plan: Plan, objective: Objective, batch: int) -> Plan:
    """The plan with what an objective trains and needs; `batch` is the number of labelled images."""
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

    eligible = accumulate(map(objective.complete, plan.phases), operator.or_)
    phases = (replace(settled(phase), eligible=each) for phase, each in zip(plan.phases, eligible, strict=True))
    return replace(plan, phases=tuple(phases))
