"""Linear probe on frozen features, cross-validated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C: inverse strength of the penalty, features scaled to variance 1
_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of a cross-validated linear probe."""

    right: npt.NDArray[np.bool_]  # (N,): whether the probe that had not seen the image predicted it correctly
    loss: float  # mean cross-entropy, nats
    strength: float  # the chosen penalty, as scikit-learn's C
    folds: int

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(self.right.mean())


def cross_validated(
    features: Floats,
    labels: Labels,
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    uneven: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Probe:
    """Fit logistic regressions (scikit-learn) on (N, D) features, each on all folds but one, and score it on that one.

    The penalty with the smallest loss over all folds is chosen. It is one number for all images, so choosing it adds
    little to the accuracy; each image's prediction is from a probe that was not fitted to it.

    Args:
        features: (N, D).
        labels: (N,), 0 to K - 1.
        seed: Of the folds: the same for every backbone.
        strengths: Penalties to try, the strongest first.
        uneven: Leave a class with few images out of some folds, instead of making only as many folds as it has images.
        check: Called between fits.

    Raises:
        DataError: A class has only one image.
    """
    # Slow to import (seconds), and few runs need them.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = np.bincount(labels)
    smallest = int(sizes[sizes > 0].min())
    if smallest < 2 or len(np.unique(labels)) < 2:
        raise DataError(
            "there are too few images to test features on",
            why=f"the smallest class has {smallest}, and images are tested by a probe fitted on others",
            fix="give more images, at least 2 of each class",
        )
    count = min(FOLDS, int(sizes.max()) if uneven else smallest)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a class with fewer images than folds
        folds = list(splitter.split(features, labels))
    values = features.astype(np.float32)
    results: dict[float, tuple[float, npt.NDArray[np.bool_]]] = {}
    for strength in strengths:
        logs = np.zeros(len(labels))
        right = np.zeros(len(labels), dtype=np.bool_)
        for fit, test in folds:
            check()
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_ITERATIONS))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # almost converged is good enough for a ranking
                model.fit(values[fit], labels[fit])
            shares = np.clip(model.predict_proba(values[test]), 1e-12, 1.0)
            names = model.classes_
            right[test] = names[shares.argmax(1)] == labels[test]
            logs[test] = np.log(shares[np.arange(len(test)), np.searchsorted(names, labels[test])])
        results[strength] = -float(logs.mean()), right
        losses = [loss for loss, _ in results.values()]
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break  # the loss is practically convex in the strength: it only gets worse from here
    best = min(results, key=lambda strength: results[strength][0])
    return Probe(results[best][1], results[best][0], best, len(folds))
