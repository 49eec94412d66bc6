"""A linear probe on frozen features, judged on images that it was not fitted on."""

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
    """What a cross-validated linear probe said about every image."""

    right: npt.NDArray[np.bool_]  # (N,): whether the image was named rightly by the probe that had not seen it
    loss: float  # mean cross-entropy, nats
    strength: float  # the penalty chosen, as scikit-learn's C
    folds: int

    @property
    def accuracy(self) -> float:
        """Share of images named rightly."""
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
    """Fit logistic regressions (scikit-learn) on all folds but one, and judge each on that one.

    The strength of the penalty is the one with the smallest loss over all folds. It is one number for all images, so
    what choosing it adds to the accuracy is small; the accuracy of each image's own probe is not fitted to it.

    Args:
        features: (N, D).
        labels: (N,), 0 to K - 1.
        seed: Of the folds; the same images and seed give the same folds for every backbone.
        strengths: Of the penalty, to choose from, the strongest first.
        uneven: Leave a class that has few images out of some folds, instead of making as few folds as it has images.
        check: Called between fits.

    Raises:
        DataError: A class has one image only.
    """
    # These take seconds to import, and few runs need them.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = np.bincount(labels)
    smallest = int(sizes[sizes > 0].min())
    if smallest < 2 or len(np.unique(labels)) < 2:
        raise DataError(
            "there are too few images to judge features by",
            why=f"the smallest class has {smallest}, and one half of the images is judged by the other",
            fix="give more images, at least 2 of each class",
        )
    count = min(FOLDS, int(sizes.max()) if uneven else smallest)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer images than there are folds
        folds = list(splitter.split(features, labels))
    values = features.astype(np.float32)
    tried: dict[float, tuple[float, npt.NDArray[np.bool_]]] = {}
    for strength in strengths:
        logs = np.zeros(len(labels))
        right = np.zeros(len(labels), dtype=np.bool_)
        for fit, judge in folds:
            check()
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_ITERATIONS))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is as good for an order
                model.fit(values[fit], labels[fit])
            shares = np.clip(model.predict_proba(values[judge]), 1e-12, 1.0)
            names = model.classes_
            right[judge] = names[shares.argmax(1)] == labels[judge]
            logs[judge] = np.log(shares[np.arange(len(judge)), np.searchsorted(names, labels[judge])])
        tried[strength] = -float(logs.mean()), right
        losses = [loss for loss, _ in tried.values()]
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break  # the loss is convex in the strength for all that matters: it only gets worse from here
    best = min(tried, key=lambda strength: tried[strength][0])
    return Probe(tried[best][1], tried[best][0], best, len(folds))
