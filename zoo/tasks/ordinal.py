"""Steps from low to high, by conditional probabilities (CORN; Shi, Cao and Raschka 2021).

Output k says how probable it is that an image lies above step k, given that it lies above step k - 1: "Deep Neural
Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities". So the probabilities of lying above
each step never rise from one to the next, and the head stays a linear one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Places = npt.NDArray[np.int64]


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


def step_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """How probable each step is, (N, steps), from (N, steps - 1) logits."""
    above = torch.cat([torch.ones_like(logits[:, :1]), logits.sigmoid().cumprod(1), torch.zeros_like(logits[:, :1])], 1)
    return above[:, :-1] - above[:, 1:]


def step_of(logits: torch.Tensor) -> torch.Tensor:
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


def measure_steps(
    logits: torch.Tensor, steps: torch.Tensor, names: Sequence[str], ids: Sequence[str], most: int
) -> dict[str, Any]:
    """Everything that a result says about steps.

    Args:
        logits: (N, steps - 1).
        steps: (N,), positions of the true steps.
        names: The steps, from low to high.
        ids: Name of each image.
        most: Mistakes that are kept.

    Returns:
        Plain values: kappa (quadratic weights), accuracy, mae (in steps), loss (nats), n, baseline (accuracy of the
        commonest step), classes, confusion (rows: truth), mistakes (the farthest off).
    """
    from sklearn.metrics import confusion_matrix

    guesses, real = step_of(logits).numpy(), steps.numpy().astype(np.int64)
    away = np.abs(guesses - real)
    present = np.bincount(real, minlength=len(names))
    hits = np.bincount(real[away == 0], minlength=len(names))
    shares = step_probabilities(logits.double()).numpy()
    wrong = np.flatnonzero(away)
    worst = wrong[np.argsort(-away[wrong], kind="stable")][:most]
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
