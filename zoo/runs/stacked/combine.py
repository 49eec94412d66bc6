"""Combiners of several models' predictions, each a few tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

KINDS = ("mean", "weighted", "gated", "logistic")  # ordered by their number of parameters

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class MemberOutputs:
    """The members' predictions for images."""

    logs: torch.Tensor  # (members, N, classes), log-probabilities, float64
    features: tuple[torch.Tensor, ...]  # (N, D) of each member: the input of its classifier
    labels: torch.Tensor  # (N,), int64

    def some(self, rows: torch.Tensor) -> MemberOutputs:
        """The predictions for some of the images."""
        return MemberOutputs(self.logs[:, rows], tuple(each[rows] for each in self.features), self.labels[rows])


@dataclass(frozen=True, slots=True)
class Combiner:
    """A fitted combiner.

    All have `members` (members,): a temperature for each member's logits, so that overconfidence gives no weight.
    `weighted` has `weights` (members,), as logits. `gated` has `centre` (features,) and `basis` (features, components)
    for its input, `gate` (components, members) and `bias` (members,). `logistic` has `matrix`
    (members, classes, classes), which is added to the geometric mean, and `bias` (classes,).
    """

    kind: str
    tensors: Tensors
    temperature: float  # of the combined log-probabilities (Guo et al. 2017)

    def logs(self, logs: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probabilities (N, classes) from those of the members (members, N, classes) and their features."""
        own = calibrated(logs, self.tensors["members"])
        return (raw_logs(self.kind, self.tensors, own, features) / self.temperature).log_softmax(1)

    def weights(self, features: Sequence[torch.Tensor], members: int) -> torch.Tensor:
        """The weight of each member, (members,).

        For mean, weighted and gated (averaged over these images) it is its share of the mixture; they add up to 1. For
        logistic it is the mean coefficient of a class's own log-probability: any number, with any sum.
        """
        if self.kind == "mean":
            return torch.full((members,), 1 / members, dtype=torch.float64)
        if self.kind == "weighted":
            return self.tensors["weights"].softmax(0)
        if self.kind == "gated":
            return gate_logits(self.tensors, features).softmax(1).mean(0)
        return 1 / members + self.tensors["matrix"].diagonal(dim1=1, dim2=2).mean(1)


def calibrated(logs: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (members, N, classes) at a temperature for each member."""
    return (logs / temperatures[:, None, None]).log_softmax(2)


def raw_logs(
    kind: str, tensors: Mapping[str, torch.Tensor], logs: torch.Tensor, features: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Log-probabilities (N, classes) from calibrated members, up to a constant in each row."""
    if kind == "mean":
        return logs.logsumexp(0) - torch.tensor(float(len(logs)), dtype=logs.dtype).log()
    if kind == "weighted":
        return (logs + tensors["weights"].log_softmax(0)[:, None, None]).logsumexp(0)
    if kind == "gated":
        shares = gate_logits(tensors, features).log_softmax(1)
        return (logs + shares.T[:, :, None]).logsumexp(0)
    return logs.mean(0) + torch.einsum("mnc,mcd->nd", logs, tensors["matrix"]) + tensors["bias"]


def gate_logits(tensors: Mapping[str, torch.Tensor], features: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gate's logits (N, members) from the members' concatenated features."""
    whole = torch.cat([each.double() for each in features], dim=1)
    return (whole - tensors["centre"]) @ tensors["basis"] @ tensors["gate"] + tensors["bias"]
