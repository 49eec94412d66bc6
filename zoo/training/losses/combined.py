"""Cross-entropy on labelled images, and terms that look at images without labels beside them.

A term is one method from one paper, and one file in `alignment/` or `semi/`, which says `METHOD = …` at its end.
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
    """What a term may build its own modules from."""

    features: int  # width of what goes into the classifier
    classes: int
    images: int  # without labels
    threshold: float = 0.95  # confidence from which a guess counts as a label


@dataclass(frozen=True, slots=True)
class Sight:
    """What a term sees of one step."""

    source: Seen  # the labelled images
    views: tuple[Seen, ...]  # the images without labels: as they are augmented, and strongly where a term asks for it
    indices: torch.Tensor  # (B,) positions of the images without labels, on their device
    progress: float  # how much of the phase is done, 0 to 1


class Term(nn.Module):
    """One method: what it adds to the loss."""

    name: ClassVar[str]
    views: ClassVar[int] = 1  # of each image without a label; with 2 the second is strongly augmented
    weight: ClassVar[float] = 1.0  # that the paper gives it
    whole: ClassVar[bool] = False  # whether it compares the images of a batch, so that a batch in parts is not the same
    least: ClassVar[int] = 1  # images of each domain that it must see together

    def forward(self, sight: Sight) -> Loss:
        """The term, unweighted, and what there is to log of it."""
        raise NotImplementedError


class Beside(Objective):
    """Supervised loss plus weighted terms, where the features train; elsewhere the supervised loss alone.

    All images go through the network together, so that live norms see both domains.

    Args:
        supervised: The loss on the labelled images.
        terms: What is added, each with its weight.
        ratio: Images without labels beside each labelled one.
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
        """Where more than the head trains: what frozen features make of the images cannot be changed."""
        return any(not group.frozen for group in phase.groups[:-1])

    def complete(self, phase: PhasePlan) -> bool:
        """Where the terms take part."""
        return self.trains(phase)

    def unlabelled(self, phase: PhasePlan) -> int:
        """Every view counts."""
        return self._ratio * self.views if self.trains(phase) else 0

    def needs_images(self, phase: PhasePlan) -> str:
        """Images without labels take no part in a phase that trains from kept activations."""
        if self.trains(phase):
            return f"{self.name} looks at images without labels too"
        return self.supervised.needs_images(phase)

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        if batch.unlabelled is None:
            return self.supervised.forward(network, batch, progress)
        images, targets = self.supervised.mixed(batch.images, batch.labels)
        views = batch.unlabelled.views
        everything = look(network, torch.cat([images, *views]))
        sizes = [len(images), *map(len, views)]
        source, *others = (
            Seen(features, logits)
            for features, logits in zip(
                torch.split(everything.features, sizes), torch.split(everything.logits, sizes), strict=True
            )
        )
        sight = Sight(source, tuple(others), batch.unlabelled.indices.to(images.device), progress)
        total = self.supervised.compare(source.logits, targets)
        parts = {"supervised": total}
        for term, weight in zip(self.terms, self._weights, strict=True):
            assert isinstance(term, Term)
            found = term.forward(sight)
            total = total + weight * found.total
            parts |= {term.name: found.total, **found.parts}
        return Loss(total, parts)
