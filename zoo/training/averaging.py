"""Weight averaging: greedy soups and WiSE-FT, for networks that share a start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.training.selection import is_better, ranked

State = Mapping[str, torch.Tensor]
Scores = dict[str, float]
SHARES = tuple(number / 10 for number in range(11))  # of a sweep


class Sum:
    """A float64 sum of weights, so that the mean of equal tensors is exactly these tensors again."""

    def __init__(self, first: State) -> None:
        self._first = first
        self._sums = {name: tensor.double() for name, tensor in first.items() if tensor.is_floating_point()}
        self._count = 1

    def plus(self, other: State) -> Sum:
        """The sum with one more network; this one is unchanged."""
        more = copy.copy(self)
        more._sums = {name: tensor + other[name].double() for name, tensor in self._sums.items()}
        more._count = self._count + 1
        return more

    def mean(self) -> dict[str, torch.Tensor]:
        """The mean in the original dtypes; integers (batch counts) are the first network's."""
        return {
            name: (self._sums[name] / self._count).to(tensor.dtype) if name in self._sums else tensor
            for name, tensor in self._first.items()
        }


def interpolate(start: State, end: State, share: float, keep: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """(1 - share) start + share end, but `keep` as in `end` (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903)."""
    mixed = {}
    for name, tensor in end.items():
        if name in keep or not tensor.is_floating_point():
            mixed[name] = tensor
        else:
            # In float64, so that tensors that are equal in both stay equal to the bit.
            mixed[name] = torch.lerp(start[name].double(), tensor.double(), share).to(tensor.dtype)
    return mixed


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A network that may go into a soup."""

    facts: Mapping[str, Any]  # for the record
    read: Callable[[], State]  # its weights


@dataclass(frozen=True, slots=True)
class Soup:
    """The result of a greedy soup."""

    state: dict[str, torch.Tensor]
    scores: Scores  # of the soup, on the validation images
    # Every ingredient, best first: its facts, scores, whether it is `kept`, and the scores of the average `with` it.
    rows: tuple[dict[str, Any], ...]

    @property
    def kept(self) -> int:
        """How many networks are in it."""
        return sum(row["kept"] for row in self.rows)


def greedy(ingredients: Sequence[Ingredient], score: Callable[[State], Scores], select_by: str) -> Soup:
    """The greedy soup of Wortsman et al. 2022 (arXiv:2203.05482): best first, each is added unless that is worse."""
    alone = [score(one.read()) for one in ingredients]
    best, *others = ranked(alone, select_by)
    total, scores = Sum(ingredients[best].read()), alone[best]
    rows = [{**ingredients[best].facts, **scores, "kept": True, "with": None}]
    for position in others:
        more = total.plus(ingredients[position].read())
        together = score(more.mean())
        kept = is_better(together, scores, select_by)
        rows.append({**ingredients[position].facts, **alone[position], "kept": kept, "with": together})
        if kept:
            total, scores = more, together
    return Soup(total.mean(), scores, tuple(rows))


@dataclass(frozen=True, slots=True)
class Line:
    """The result of averaging a start and an end."""

    share: float
    state: dict[str, torch.Tensor]
    rows: tuple[dict[str, Any], ...]  # every share tried: `alpha`, its scores, `kept`


def wise_ft(
    start: State,
    end: State,
    share: float | str,
    score: Callable[[State], Scores],
    select_by: str,
    keep: Collection[str] = (),
) -> Line:
    """Average the weights before and after the body trained (WiSE-FT, Wortsman et al. 2022).

    `share` is the end's, or "sweep": the best of `SHARES`, among equal ones the nearest to the end. Tensors that `keep`
    names stay the end's.
    """
    shares = SHARES if isinstance(share, str) else tuple(sorted({0.0, float(share), 1.0}))
    scored = [score(interpolate(start, end, each, keep)) for each in shares]
    chosen = shares[ranked(scored, select_by)[0]] if isinstance(share, str) else float(share)
    rows = [{"alpha": each, **scores, "kept": each == chosen} for each, scores in zip(shares, scored, strict=True)]
    return Line(chosen, interpolate(start, end, chosen, keep), tuple(rows))
