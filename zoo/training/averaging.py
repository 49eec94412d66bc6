"""Averages of weights: of networks that grew from the same start, and so lie close enough to each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.training.selection import is_better, ranked

State = Mapping[str, torch.Tensor]
Scores = dict[str, float]
SHARES = tuple(number / 10 for number in range(11))  # that a sweep tries


class Sum:
    """Weights added up in float64, where the mean of equal tensors is exactly these tensors again."""

    def __init__(self, first: State) -> None:
        self._first = first
        self._sums = {name: tensor.double() for name, tensor in first.items() if tensor.is_floating_point()}
        self._count = 1

    def plus(self, other: State) -> Sum:
        """The sum with one network more; this one stays as it is."""
        more = Sum.__new__(Sum)
        more._first, more._count = self._first, self._count + 1
        more._sums = {name: tensor + other[name].double() for name, tensor in self._sums.items()}
        return more

    def mean(self) -> dict[str, torch.Tensor]:
        """Their mean, in the types that they had; whole numbers (counts of batches) are the first network's."""
        return {
            name: (self._sums[name] / self._count).to(tensor.dtype) if name in self._sums else tensor
            for name, tensor in self._first.items()
        }


def between(start: State, end: State, share: float, keep: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Weights on the line from one network to another (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).

    Args:
        start: The network before its body trained.
        end: And after.
        share: How much of the end: 0 is the start, 1 the end.
        keep: Names of tensors that are the end's whatever the share.

    Returns:
        (1 - share) x start + share x end. Where both are equal it is the same to the bit.
    """
    mixed = {}
    for name, tensor in end.items():
        if name in keep or not tensor.is_floating_point():
            mixed[name] = tensor
        else:
            line = torch.lerp(start[name].double(), tensor.double(), share)
            mixed[name] = line.to(tensor.dtype)
    return mixed


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A network that may go into a soup."""

    facts: Mapping[str, Any]  # what it is, for the record
    read: Callable[[], State]  # its weights


@dataclass(frozen=True, slots=True)
class Soup:
    """What a greedy soup came to."""

    state: dict[str, torch.Tensor]
    scores: Scores  # of the soup, on the validation images
    rows: tuple[dict[str, Any], ...]  # every ingredient, the best first: its facts, scores, `kept`, `with`

    @property
    def kept(self) -> int:
        """How many networks are in it."""
        return sum(row["kept"] for row in self.rows)


def greedy(ingredients: Sequence[Ingredient], score: Callable[[State], Scores], select_by: str) -> Soup:
    """The greedy soup of Wortsman et al. 2022 (arXiv:2203.05482).

    From the best ingredient down, each is added to the average if that makes it no worse.

    Args:
        ingredients: One or more, with the same tensors.
        score: What the validation images say about weights.
        select_by: "accuracy", "loss" or "refinement": what better means.
    """
    scored = [score(one.read()) for one in ingredients]
    order = ranked(scored, select_by)
    best = order[0]
    total, scores = Sum(ingredients[best].read()), scored[best]
    rows = [_row(ingredients[best], scored[best], kept=True, mixed=None)]
    for place in order[1:]:
        tried = total.plus(ingredients[place].read())
        found = score(tried.mean())
        kept = is_better(found, scores, select_by)
        rows.append(_row(ingredients[place], scored[place], kept=kept, mixed=found))
        if kept:
            total, scores = tried, found
    return Soup(total.mean(), scores, tuple(rows))


@dataclass(frozen=True, slots=True)
class Line:
    """What averaging a start and an end came to."""

    share: float
    state: dict[str, torch.Tensor]
    rows: tuple[dict[str, Any], ...]  # every share tried: `alpha`, its scores, `kept`


def along(
    start: State,
    end: State,
    asked: float | str,
    score: Callable[[State], Scores],
    select_by: str,
    keep: Collection[str] = (),
) -> Line:
    """Average a start and an end.

    Args:
        start: The network before its body trained.
        end: And after.
        asked: The share of the end, or "sweep": the best of `SHARES`; of equal ones the nearest to the end.
        score: What the validation images say about weights.
        select_by: What better means.
        keep: Tensors that are the end's.
    """
    shares = SHARES if isinstance(asked, str) else tuple(sorted({0.0, float(asked), 1.0}))
    scored = [score(between(start, end, share, keep)) for share in shares]
    chosen = shares[ranked(scored, select_by)[0]] if isinstance(asked, str) else float(asked)
    rows = [{"alpha": share, **scores, "kept": share == chosen} for share, scores in zip(shares, scored, strict=True)]
    return Line(chosen, between(start, end, chosen, keep), tuple(rows))


def _row(one: Ingredient, scores: Scores, *, kept: bool, mixed: Scores | None) -> dict[str, Any]:
    """`with` is what the average with it scores; None for the first, which is alone."""
    return {**one.facts, **scores, "kept": kept, "with": mixed}
