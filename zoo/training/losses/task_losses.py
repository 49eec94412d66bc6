"""Losses of tasks: one, or several combined by fixed weights, by uncertainty, or by PCGrad."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import nn

from zoo.data import Batch
from zoo.recipes.plan import PhasePlan
from zoo.recipes.recipe import TaskWeighting
from zoo.tasks import kinds
from zoo.tasks.kind import USUAL, LossOptions
from zoo.tasks.schema import Task, scored_alone, spans
from zoo.training.losses.objective import Loss, Objective


class Tasks(Objective):
    """The losses of the tasks, each over the targets that are known in the batch.

    Each is the sum over these targets, divided by their average number in a batch of its size: a target has the same
    weight whatever else is in the batch, and into however many parts a step's batch is cut.

    - "fixed": the sum of the losses, each times its weight.
    - "uncertainty": exp(-s) times each loss plus s / 2, with a learned s for each task (Kendall, Gal and Cipolla 2018,
      "Multi-Task Learning Using Uncertainty to Weigh Losses"). s is the logarithm of a variance: what cannot be
      predicted from the images counts less.
    - "pcgrad": the sum, but of the tasks' gradients of the shared part of the network, each loses what works against
      another's (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning").

    Args:
        tasks: The tasks, in the order of the head's outputs.
        weighting: How the losses are combined.
        weights: Of tasks by name; others have 1.
        options: Of the losses themselves.
        head: Names of the head's parameters, which tasks do not share.
        shares: Of each task, the share of its targets that is known in training, see `known_shares`; None: all.
    """

    name = "task weights"

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        weighting: TaskWeighting = "fixed",
        weights: Mapping[str, float] | None = None,
        options: LossOptions = USUAL,
        head: Collection[str] = (),
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self._spans, self._weighting, self._options = tuple(spans(tasks)), weighting, options
        self._head = tuple(head)
        self._share = (shares or [1.0])[0] if scored_alone(tasks) else None  # of the one task that needs no name
        self.weights: torch.Tensor
        factors = [(weights or {}).get(task.name, 1.0) for task in tasks]
        self.register_buffer("weights", torch.tensor(factors), persistent=False)
        self.shares: torch.Tensor
        self.register_buffer("shares", torch.tensor(shares or [1.0] * len(tasks)), persistent=False)
        self.spread = nn.Parameter(torch.zeros(len(tasks))) if weighting == "uncertainty" else None

    def backwards(self, phase: PhasePlan) -> int:
        """PCGrad takes a backward pass for each task first, if tasks share anything that trains."""
        return passes(self._weighting, len(self._spans)) if phase.trains_body else 1

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch. Nothing is read back from the device, which could not work ahead otherwise."""
        logits = network(batch.images).float()
        tasks = [(kinds.of(span.task), span.task, logits[:, span.outputs], batch.labels[:, span.columns])
                 for span in self._spans]  # fmt: skip
        means = torch.stack([kind.loss(task, outputs, truth, self._options) for kind, task, outputs, truth in tasks])
        known = torch.stack([kind.mask(task, truth).float().mean() for kind, task, _, truth in tasks])
        if self._share is not None:
            return Loss(means[0] * known[0] / self._share)
        amounts = known / self.shares  # 1 on average over the batches
        losses = means * amounts
        if self.spread is not None:
            total = (torch.exp(-self.spread) * losses + amounts * self.spread / 2).sum()
        else:
            weighted = self.weights * losses
            total = weighted.sum()
            if self._weighting == "pcgrad" and torch.is_grad_enabled():
                total = total + self._surgery(network, weighted.unbind())
        names = [span.task.name for span in self._spans]
        parts = dict(zip(names, means, strict=True))
        if self.spread is not None:
            parts |= {f"weight of {name}": weight for name, weight in zip(names, torch.exp(-self.spread), strict=True)}
        return Loss(total, parts, dict(zip(names, amounts, strict=True)))

    def _surgery(self, network: nn.Module, losses: Sequence[torch.Tensor]) -> torch.Tensor:
        """Zero, with a gradient that turns the sum's gradient into that of PCGrad."""
        named = {name: tensor for name, tensor in network.named_parameters() if tensor.requires_grad}
        own = {_wrapped_name(name, named) for name in self._head}
        shared = [tensor for name, tensor in named.items() if name not in own]
        if not shared or len(losses) < 2:
            return torch.zeros_like(losses[0])
        gradients = [_flat(torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True), shared)
                     for loss in losses]  # fmt: skip
        change = projected(gradients) - sum(gradients[1:], gradients[0])
        flat = torch.cat([tensor.flatten() for tensor in shared]).to(change.dtype)
        # Its gradient is `change`; without its own value the loss stays as it is.
        inner = (flat * change).sum()
        return inner - inner.detach()


def projected(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of gradients, each without what works against the others' originals, in random order (PCGrad)."""
    total = torch.zeros_like(gradients[0])
    for own, gradient in enumerate(gradients):
        left = gradient.clone()
        for other in torch.randperm(len(gradients)).tolist():
            if other != own:
                # What points against the other gradient: its projection, if the product is negative.
                against = torch.dot(left, gradients[other]).clamp(max=0)
                left = left - against / gradients[other].square().sum().clamp(min=1e-12) * gradients[other]
        total += left
    return total


def passes(weighting: TaskWeighting, tasks: int) -> int:
    """How many backward passes a batch takes through what this number of tasks shares."""
    return 1 + tasks if weighting == "pcgrad" and tasks > 1 else 1


def known_shares(tasks: Sequence[Task], targets: torch.Tensor, frequency: torch.Tensor | None = None) -> list[float]:
    """The share of each task's targets that is known; 1 if none is, because nothing is divided by it then.

    `targets` are (N, columns), NaN if unknown; `frequency` is (N,), how often each image is drawn.
    """
    weights = torch.ones(len(targets), dtype=torch.float64) if frequency is None else frequency
    known = [kinds.of(span.task).mask(span.task, targets[:, span.columns]).double().mean(1) for span in spans(tasks)]
    return [float((share * weights).sum() / weights.sum()) or 1.0 for share in known]


def _wrapped_name(parameter: str, names: Iterable[str]) -> str:
    """The name of a model's parameter in a module that wraps the model; empty if it is not there.

    An inner block may have the same ending, `layer1.0.se.fc.weight` as `fc.weight`: the outermost is meant.
    """
    return min((name for name in names if f".{name}".endswith(f".{parameter}")), key=len, default="")


def _flat(gradients: Sequence[torch.Tensor | None], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([(torch.zeros_like(tensor) if gradient is None else gradient).flatten().float()
                      for gradient, tensor in zip(gradients, tensors, strict=True)])  # fmt: skip
