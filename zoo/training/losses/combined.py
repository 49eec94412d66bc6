"""Supervised loss plus terms on unlabelled images.

A term is one method from one paper, and one file in `alignment/` or `semi/`, which sets `METHOD` at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from zoo.data import Batch
from zoo.models.features import Seen, look
from zoo.recipes.plan import PhasePlan
from zoo.training.losses.objective import Loss, Objective
from zoo.training.losses.supervised import Supervised


@dataclass(frozen=True, slots=True)
class TermSizes:
    """The sizes from which a term builds its own modules."""

    features: int  # width of what goes into the classifier
    classes: int
    images: int  # unlabelled ones
    threshold: float = 0.95  # confidence from which a prediction counts as a label


@dataclass(frozen=True, slots=True)
class TermInput:
    """The inputs of a term in one step."""

    source: Seen  # the labelled images
    views: tuple[Seen, ...]  # the unlabelled images: with the recipe's augmentation, then strongly augmented
    indices: torch.Tensor  # (B,) positions of the unlabelled images, on their device
    progress: float  # share of the phase that is done, 0 to 1


class Term(nn.Module):
    """One method: what it adds to the loss."""

    name: ClassVar[str]
    views: ClassVar[int] = 1  # of each unlabelled image; with 2 the second is strongly augmented
    weight: ClassVar[float] = 1.0  # the paper's
    whole: ClassVar[bool] = False  # whether it compares the images of a batch, so that a batch in parts is not the same
    least: ClassVar[int] = 1  # images of each domain that it must see together

    def __init__(self, sizes: TermSizes) -> None:
        super().__init__()

    def forward(self, inputs: TermInput) -> Loss:
        """The unweighted term, and values to log."""
        raise NotImplementedError


class Combined(Objective):
    """Supervised loss, plus weighted terms while the features train.

    All images go through the network together, so that live norms see both domains. `ratio` is the number of unlabelled
    images for each labelled one.
    """

    def __init__(self, supervised: Supervised, terms: Sequence[tuple[Term, float]], ratio: int) -> None:
        super().__init__()
        self.supervised = supervised
        self.terms = nn.ModuleList(term for term, _ in terms)
        self.name = " and ".join(term.name for term, _ in terms)
        self.views = max((int(term.views) for term, _ in terms), default=1)
        self._weights = [weight for _, weight in terms]
        self._ratio = ratio

    def trains(self, phase: PhasePlan) -> bool:
        """If more than the head trains: terms cannot change frozen features."""
        return any(not group.frozen for group in phase.groups[:-1])

    def complete(self, phase: PhasePlan) -> bool:
        """If the terms take part."""
        return self.trains(phase)

    def unlabelled(self, phase: PhasePlan) -> int:
        """All views count."""
        return self._ratio * self.views if self.trains(phase) else 0

    def needs_images(self, phase: PhasePlan) -> str:
        """Unlabelled images take no part in a phase that trains from cached features."""
        if self.trains(phase):
            return f"{self.name} needs unlabelled images too"
        return self.supervised.needs_images(phase)

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        if batch.unlabelled is None:
            return self.supervised.forward(network, batch, progress)
        images, targets = self.supervised.mixed(batch.images, batch.labels)
        views = batch.unlabelled.views
        seen = look(network, torch.cat([images, *views]))
        sizes = [len(images), *map(len, views)]
        source, *others = map(Seen, torch.split(seen.features, sizes), torch.split(seen.logits, sizes))
        inputs = TermInput(source, tuple(others), batch.unlabelled.indices.to(images.device), progress)
        total = self.supervised.compare(source.logits, targets)
        parts = {"supervised": total}
        for term, weight in zip(self.terms, self._weights, strict=True):
            assert isinstance(term, Term)
            loss = term.forward(inputs)
            total = total + weight * loss.total
            parts |= {term.name: loss.total, **loss.parts}
        return Loss(total, parts)
