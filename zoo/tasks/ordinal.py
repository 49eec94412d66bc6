"""Steps from low to high, by conditional probabilities (CORN; Shi, Cao and Raschka 2021).

Output k says how probable it is that an image lies above step k, given that it lies above step k - 1: "Deep Neural
Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities". So the probabilities of lying above
each step never rise from one to the next, and the head stays a linear one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from zoo.tasks.kind import MISTAKES, TaskPrediction, Column, Kind, LossOptions, Unfit, Values, ranked
from zoo.tasks.schema import FACTS, ORDINAL, Task, number_of

Places = npt.NDArray[np.int64]


class Ordinal(Kind):
    """Steps from low to high."""

    facts = FACTS[ORDINAL]
    purpose = "to say which of {classes} an image is on ({name})"
    usage = (
        "# Each output: above a step, given that it is above the one before.\n"
        '        print(task["name"], names[int((mine.sigmoid().cumprod(0) > 0.5).sum())])'
    )
    shown = (("accuracy", "accuracy", "%"), ("mean error, steps", "mae", ".3f"), ("loss", "loss", ".4f"))

    def in_order(self, column: Column, found: set[str]) -> tuple[str, ...]:
        """The steps are those that a person wrote, or numbers in their order."""
        if column.levels:
            missing = sorted(found - set(column.levels))
            if missing:
                raise Unfit(f"{', '.join(missing[:10])} is none of the steps {'<'.join(column.levels)}",
                            "name every step, from low to high")  # fmt: skip
            return column.levels
        if all(number_of(text) is not None for text in found):
            return tuple(sorted(found, key=lambda text: (float(text), text)))
        few = sorted(found)[:5]
        raise Unfit(
            f"its steps are texts ({', '.join(few)}), whose order nobody knows",
            f"say it, from low to high: --task '{column.name}={':'.join(column.place)}:{'<'.join(few)}'",
        )

    def counts(self, task: Task, targets: Values) -> list[int]:
        """Images above each step but the last."""
        found: list[int] = (targets > np.arange(task.outputs)).sum(0).tolist()
        return found

    def target_mask(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """Whether it lies above a step is asked of what lies above the one before."""
        return targets >= torch.arange(task.outputs, device=targets.device)

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """See `ordinal_loss`."""
        return ordinal_loss(logits, targets[:, 0])

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """Kappa."""
        return kappa(levels_of(logits).numpy(), targets[:, 0].long().numpy(), len(task.classes))

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """With kappa (quadratic weights), mae (in steps), and baseline, the accuracy of the commonest step."""
        from sklearn.metrics import confusion_matrix

        names, steps = task.classes, targets[:, 0].long()
        guesses, real = levels_of(logits).numpy(), steps.numpy()
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
            "loss": float(ordinal_loss(logits.double(), steps)),
            "n": len(real),
            "baseline": float(present.max() / len(real)),
            "classes": [{"name": name, "n": int(n), "accuracy": float(hit / n) if n else None}
                        for name, n, hit in zip(names, present, hits, strict=True)],
            "confusion": confusion_matrix(real, guesses, labels=range(len(names))).tolist(),
            "mistakes": [{"id": ids[place], "label": names[real[place]], "predicted": names[guesses[place]],
                          "probability": float(shares[place, guesses[place]])} for place in map(int, worst)],
        }  # fmt: skip

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The step, and the most probable ones."""
        pairs = zip(levels_of(logits).tolist(), level_probabilities(logits), strict=True)
        return [TaskPrediction(task.classes[step], float(row[step]), top=ranked(row, task, top)) for step, row in pairs]

    def per_class(self, images: int, cases: Sequence[int]) -> list[int]:
        """Those above the step before that are not above this one."""
        return [more - less for more, less in pairwise([images, *cases, 0])]


def ordinal_loss(logits: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The mean loss over the conditional questions that images are asked, nats.

    Args:
        logits: (N, steps - 1).
        steps: (N,), positions of the true steps; NaN where one is not known, which does not count.
    """
    above = torch.arange(logits.shape[1], device=logits.device)
    asked = steps[:, None] >= above  # whether an image lies above step k is a question to those above step k - 1
    losses = functional.binary_cross_entropy_with_logits(
        logits, (steps[:, None] > above).to(logits.dtype), reduction="none"
    )
    return (losses * asked).sum() / asked.sum().clamp(min=1)


def level_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """How probable each step is, (N, steps), from (N, steps - 1) logits."""
    above = torch.cat([torch.ones_like(logits[:, :1]), logits.sigmoid().cumprod(1), torch.zeros_like(logits[:, :1])], 1)
    return above[:, :-1] - above[:, 1:]


def levels_of(logits: torch.Tensor) -> torch.Tensor:
    """The step of each image, (N,): as many as it is more probably above than not."""
    return (logits.sigmoid().cumprod(1) > 0.5).sum(1)


def kappa(guesses: Places, steps: Places, count: int) -> float:
    """Cohen's kappa with quadratic weights: 1 where all is right, 0 by chance, less where it is worse.

    Args:
        guesses: (N,), positions of steps.
        steps: (N,), of the true ones.
        count: Steps that there are; one that nobody has or guesses still lies between its neighbours.
    """
    from sklearn.metrics import cohen_kappa_score  # takes seconds to import

    if len(np.unique(np.concatenate([guesses, steps]))) < 2:  # there is nothing to agree on
        return 0.0
    return float(cohen_kappa_score(steps, guesses, labels=np.arange(count), weights="quadratic"))
