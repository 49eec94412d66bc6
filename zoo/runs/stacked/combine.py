"""Ways to combine what several models say about an image, each a few tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

KINDS = ("mean", "weighted", "gated", "logistic")  # from the simplest to the one with the most to fit

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Said:
    """What the members said about images."""

    logs: torch.Tensor  # (members, N, classes), log-probabilities, float64
    features: tuple[torch.Tensor, ...]  # of each member, (N, D): what goes into its classifier
    labels: torch.Tensor  # (N,), int64

    def some(self, rows: torch.Tensor) -> Said:
        """The same about some of the images."""
        return Said(self.logs[:, rows], tuple(each[rows] for each in self.features), self.labels[rows])

    @property
    def members(self) -> int:
        """How many members there are."""
        return len(self.logs)


@dataclass(frozen=True, slots=True)
class Combiner:
    """One way of combining, fitted.

    Every one has `members` (members,): the temperature that each member's logarithms are divided by first, so that none
    counts for more because it is surer of itself than it should be. `weighted` has `weights` (members,), their logits.
    `gated` has `centre` (features,) and `basis` (features, components) for what goes in, `gate` (components, members)
    and `bias` (members,). `logistic` has `matrix` (members, classes, classes), which is added to the geometric mean,
    and `bias` (classes,).
    """

    kind: str
    tensors: Tensors
    temperature: float  # that the combined logarithms are divided by in the end (Guo et al. 2017)

    def logs(self, logs: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probabilities (N, classes) from those of the members (members, N, classes) and their features."""
        own = calibrated(logs, self.tensors["members"])
        return (raw_logs(self.kind, self.tensors, own, features) / self.temperature).log_softmax(1)

    def weights(self, features: Sequence[torch.Tensor], members: int) -> torch.Tensor:
        """How much each member counts, (members,).

        For mean, weighted and gated (over these images) it is the share of its probabilities, and they add up to 1. For
        logistic it is the mean coefficient of a class's own logarithm, which may be below 0, and above 1 together.
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
    """What a way of combining makes of calibrated members, (N, classes): logarithms up to a constant of each row."""
    if kind == "mean":
        return logs.logsumexp(0) - torch.tensor(float(len(logs)), dtype=logs.dtype).log()
    if kind == "weighted":
        return (logs + tensors["weights"].log_softmax(0)[:, None, None]).logsumexp(0)
    if kind == "gated":
        shares = gate_logits(tensors, features).log_softmax(1)
        return (logs + shares.T[:, :, None]).logsumexp(0)
    return logs.mean(0) + torch.einsum("mnc,mcd->nd", logs, tensors["matrix"]) + tensors["bias"]


def gate_logits(tensors: Mapping[str, torch.Tensor], features: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gate's logits, (N, members), from the members' features side by side."""
    whole = torch.cat([each.double() for each in features], dim=1)
    return (whole - tensors["centre"]) @ tensors["basis"] @ tensors["gate"] + tensors["bias"]
