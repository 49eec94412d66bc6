"""Ordinal classification: levels from low to high, by conditional probabilities (CORN).

Shi, Cao and Raschka 2021, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
Probabilities": output k is the logit of lying above level k, given that the image lies above level k - 1. So the
probabilities of lying above a level never rise from one level to the next, and the head stays linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from zoo.tasks.kind import MISTAKES, Column, Kind, LossOptions, TaskPrediction, Unfit, Values, mistake, ranked
from zoo.tasks.schema import FACTS, ORDINAL, Task, number_of

Places = npt.NDArray[np.int64]


class Ordinal(Kind):
    """One of several levels from low to high."""

    facts = FACTS[ORDINAL]
    purpose = "to tell which of {classes} an image has ({name})"
    usage = (
        "# Each output: above a level, given that it is above the one before.\n"
        '        print(task["name"], names[int((mine.sigmoid().cumprod(0) > 0.5).sum())])'
    )
    shown = (("accuracy", "accuracy", "%"), ("mean error, levels", "mae", ".3f"), ("loss", "loss", ".4f"))

    def in_order(self, column: Column, found: set[str]) -> tuple[str, ...]:
        """The levels that the user wrote, or else the numbers in order."""
        if column.levels:
            if missing := sorted(found - set(column.levels)):
                what = f"{', '.join(missing[:10])} is none of the levels {'<'.join(column.levels)}"
                raise Unfit(what, "name every level, from low to high")
            return column.levels
        if all(number_of(text) is not None for text in found):
            return tuple(sorted(found, key=lambda text: (float(text), text)))
        few = sorted(found)[:5]
        raise Unfit(
            f"its levels are texts ({', '.join(few)}), whose order is not known",
            f"name them from low to high: --task '{column.name}={':'.join(column.place)}:{'<'.join(few)}'",
        )

    def counts(self, task: Task, targets: Values) -> list[int]:
        """Images above each level but the last."""
        found: list[int] = (targets > np.arange(task.outputs)).sum(0).tolist()
        return found

    def mask(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """The term of a level needs an image above the level before."""
        return targets >= torch.arange(task.outputs, device=targets.device)

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """See `ordinal_loss`."""
        return ordinal_loss(logits, targets[:, 0])

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """Kappa with quadratic weights."""
        return kappa(levels_of(logits).numpy(), targets[:, 0].long().numpy(), len(task.classes))

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """With kappa (quadratic weights), mae (in levels), and baseline, the accuracy of the commonest level."""
        from sklearn.metrics import confusion_matrix

        names, levels = task.classes, targets[:, 0].long()
        guesses, real = levels_of(logits).numpy(), levels.numpy()
        away = np.abs(guesses - real)
        present = np.bincount(real, minlength=len(names))
        hits = np.bincount(real[away == 0], minlength=len(names))
        shares = level_probabilities(logits.double()).numpy()
        wrong = np.flatnonzero(away)
        worst = wrong[np.argsort(-away[wrong], kind="stable")][:MISTAKES]
        return {
            "kappa": kappa(guesses, real, len(names)),
            "accuracy": float((away == 0).mean()),
            "mae": float(away.mean()),
            "loss": float(ordinal_loss(logits.double(), levels)),
            "n": len(real),
            "baseline": float(present.max() / len(real)),
            "classes": [{"name": name, "n": int(n), "accuracy": float(hit / n) if n else None}
                        for name, n, hit in zip(names, present, hits, strict=True)],
            "confusion": confusion_matrix(real, guesses, labels=range(len(names))).tolist(),
            "mistakes": [mistake(ids[at], names[real[at]], names[guesses[at]], float(shares[at, guesses[at]]))
                         for at in map(int, worst)],
        }  # fmt: skip

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The level by `levels_of`, and the most probable ones."""
        pairs = zip(levels_of(logits).tolist(), level_probabilities(logits), strict=True)
        return [TaskPrediction(task.classes[at], float(row[at]), top=ranked(row, task, top)) for at, row in pairs]

    def per_class(self, images: int, cases: Sequence[int]) -> list[int]:
        """Images above the level before, less those above this one."""
        return [more - less for more, less in pairwise([images, *cases, 0])]


def ordinal_loss(logits: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The mean loss over conditional terms, nats, from logits (N, levels - 1) and true levels (N,), NaN if unknown."""
    above = torch.arange(logits.shape[1], device=logits.device)
    counted = levels[:, None] >= above  # the term of level k is conditional on lying above level k - 1
    truth = (levels[:, None] > above).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def level_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """The probability of each level, (N, levels), from (N, levels - 1) logits."""
    # From certainly above the bottom to certainly not above the top.
    above = torch.cat([torch.ones_like(logits[:, :1]), logits.sigmoid().cumprod(1), torch.zeros_like(logits[:, :1])], 1)
    return above[:, :-1] - above[:, 1:]


def levels_of(logits: torch.Tensor) -> torch.Tensor:
    """The predicted level of each image, (N,): the number of levels that it probably lies above."""
    return (logits.sigmoid().cumprod(1) > 0.5).sum(1)


def kappa(guesses: Places, levels: Places, count: int) -> float:
    """Cohen's kappa with quadratic weights, of (N,) guesses and true levels: 1 if all are right, 0 by chance.

    All `count` levels matter: one that never occurs still lies between its neighbours.
    """
    from sklearn.metrics import cohen_kappa_score  # takes seconds to import

    if len(np.unique(np.concatenate([guesses, levels]))) < 2:  # there is nothing to agree on
        return 0.0
    return float(cohen_kappa_score(levels, guesses, labels=np.arange(count), weights="quadratic"))
