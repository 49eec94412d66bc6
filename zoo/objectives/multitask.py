"""Several questions about each image: a loss for each, put together by fixed weights, by uncertainty, or by PCGrad."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from zoo.data import Batch
from zoo.engine.objective import Loss, Objective
from zoo.engine.ordinal import ordinal_loss
from zoo.engine.quantity import quantity_loss
from zoo.objectives.multilabel import LabelLoss, label_loss
from zoo.recipe import TaskWeighting
from zoo.tasks import Span, Task, spans


class MultiTask(Objective):
    """The losses of the tasks, each over the images of the batch that answer it.

    - "fixed": the sum of the losses, each times its weight.
    - "uncertainty": exp(-s) times each loss plus s / 2, with a learned s for each task (Kendall, Gal and Cipolla 2018,
      "Multi-Task Learning Using Uncertainty to Weigh Losses"). s is the logarithm of a variance: what cannot be told
      from the images counts less.
    - "pcgrad": the sum, but of what the tasks' gradients say to the shared part of the network, each loses what works
      against another's (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning").

    Args:
        tasks: The tasks, in the order of the head's outputs.
        weighting: How the losses are put together.
        weights: Of tasks by name, 1 where it is not here.
        loss: Of several labels, see `MultiLabel`.
        smoothing: Share of each target that is spread, of classes alone.
        head: Names of the head's parameters, which tasks do not share.
    """

    name = "task weights"

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        weighting: TaskWeighting = "fixed",
        weights: Mapping[str, float] | None = None,
        loss: LabelLoss = "bce",
        smoothing: float = 0.0,
        head: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._spans, self._weighting = tuple(spans(tasks)), weighting
        self._head = tuple(f".{name}" for name in head)
        self._weights = [(weights or {}).get(task.name, 1.0) for task in tasks]
        self._loss, self._smoothing = loss, smoothing
        self.last: torch.Tensor
        self.register_buffer("last", torch.zeros(len(tasks)))  # loss of each task when a batch had one, for the log
        self.spread = nn.Parameter(torch.zeros(len(tasks))) if weighting == "uncertainty" else None

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        logits = network(batch.images).float()
        known = [batch.labels[:, span.columns].isfinite().any(1) for span in self._spans]
        losses = [self._of(span, logits[rows], batch.labels[rows]) if bool(rows.any()) else None
                  for span, rows in zip(self._spans, known, strict=True)]  # fmt: skip
        there = [place for place, loss in enumerate(losses) if loss is not None]
        found = {place: loss for place, loss in enumerate(losses) if loss is not None}
        total = logits.sum() * 0.0  # a batch may answer nothing at all
        if self.spread is not None:
            total = total + self.spread.sum() * 0.0  # it takes part in every loss
            for place in there:
                total = total + torch.exp(-self.spread[place]) * found[place] + self.spread[place] / 2
        else:
            weighted = [self._weights[place] * found[place] for place in there]
            total = total + sum(weighted, torch.zeros_like(total))
            if self._weighting == "pcgrad" and torch.is_grad_enabled():
                total = total + self._surgery(network, weighted)
        last = self.last.clone()
        for place in there:
            last[place] = found[place].detach()
        self.last = last
        parts = {span.task.name: last[place] for place, span in enumerate(self._spans)}
        if self.spread is not None:
            parts |= {f"weight of {span.task.name}": torch.exp(-self.spread[place])
                      for place, span in enumerate(self._spans)}  # fmt: skip
        return Loss(total, parts)

    def _of(self, span: Span, logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """The mean loss of one task over images that answer it, nats."""
        task, outputs, truth = span.task, logits[:, span.outputs], answers[:, span.columns]
        if task.kind == "single-label":
            return functional.cross_entropy(outputs, truth[:, 0].long(), label_smoothing=self._smoothing)
        if task.kind == "multi-label":
            return label_loss(outputs, truth, self._loss, 0.0)
        if task.kind == "ordinal":
            return ordinal_loss(outputs, truth[:, 0])
        return quantity_loss(outputs[:, 0], truth[:, 0], task.mean, task.std)

    def _surgery(self, network: nn.Module, losses: Sequence[torch.Tensor]) -> torch.Tensor:
        """Zero, with the gradient that makes of the sum's gradient that of PCGrad."""
        shared = [tensor for name, tensor in network.named_parameters()
                  if tensor.requires_grad and not f".{name}".endswith(self._head)]  # fmt: skip
        if not shared or len(losses) < 2:
            return losses[0].detach() * 0.0 if losses else torch.zeros((), device=self.last.device)
        gradients = [_flat(torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True), shared)
                     for loss in losses]  # fmt: skip
        change = projected(gradients) - torch.stack(gradients).sum(0)
        flat = torch.cat([tensor.flatten() for tensor in shared]).to(change.dtype)
        moved = (flat * change).sum()
        return moved - moved.detach()


def projected(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of gradients, each without what works against the others, which are met in random order (PCGrad)."""
    found = []
    for own, gradient in enumerate(gradients):
        left = gradient.clone()
        for other in torch.randperm(len(gradients)).tolist():
            dot = torch.dot(left, gradients[other])
            if other != own and dot < 0:
                left = left - dot / gradients[other].square().sum().clamp(min=1e-12) * gradients[other]
        found.append(left)
    return torch.stack(found).sum(0)


def _flat(gradients: Sequence[torch.Tensor | None], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([(torch.zeros_like(tensor) if gradient is None else gradient).flatten().float()
                      for gradient, tensor in zip(gradients, tensors, strict=True)])  # fmt: skip
