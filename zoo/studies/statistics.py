"""Statistics of accuracies: intervals and tests over seeds and images, for single runs and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.05  # significance level of all pairs of a comparison together

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and images, with its uncertainty."""

    value: float
    interval: tuple[float, float]  # 95 %
    p: float  # of a true mean of 0, two-sided
    covers: str  # what varies in the interval, in words


def share_variance(right: npt.NDArray[np.bool_]) -> float:
    """Variance of the share of `right` (images,), with two images of either kind added (Agresti and Coull 1998).

    They keep it above 0 if all images are right, or none is: 20 of 20 do not prove 100 %.
    """
    count = len(right) + 4
    share = (int(right.sum()) + 2) / count
    return share * (1 - share) / count


def difference_variance(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Variance of the difference between the shares (images,) that two classifiers get right.

    Half an image of each kind is added (Agresti and Min 2005).
    """
    count = len(first) + 2
    gained, lost = int((first & ~second).sum()) + 0.5, int((~first & second).sum()) + 0.5
    return (gained + lost - (gained - lost) ** 2 / count) / count**2


def crossed(values: Values, *, least: float = 0.0) -> Mean:
    """Mean of `values` (seeds, images), every seed on the same images, with seeds and images both drawn at random.

    The two-way random-effects model without repetition. The variance of the mean is (MS_images + MS_seeds - MS_rest) /
    (seeds x images), with the degrees of freedom of Satterthwaite (1946). More seeds do not stand in for more images,
    nor the reverse. `least` is the variance of the mean over one seed's images, by counting: a lower bound.
    """
    seeds, images = values.shape
    mean = float(values.mean())
    if images < 2:
        return Mean(mean, (-math.inf, math.inf), 1.0, "nothing: there is one image")
    if seeds == 1:
        variance = float(values[0].var(ddof=1)) / images
        covers = "which images are measured; one seed says nothing about training"
        return _normal(mean, variance, images - 1, least, covers)
    by_seed, by_image = values.mean(1), values.mean(0)
    of_seeds = images * float(by_seed.var(ddof=1))
    of_images = seeds * float(by_image.var(ddof=1))
    rest = float(((values - by_seed[:, None] - by_image[None, :] + mean) ** 2).sum()) / ((seeds - 1) * (images - 1))
    terms = [(of_images, images - 1), (of_seeds, seeds - 1), (-rest, (seeds - 1) * (images - 1))]
    # If seeds differ less than by chance, their variance is estimated as 0, not as negative.
    if of_seeds < rest:
        terms = [(of_images, images - 1)]
    elif of_images < rest:
        terms = [(of_seeds, seeds - 1)]
    total = sum(square for square, _ in terms)
    freedom = total**2 / sum(square**2 / degrees for square, degrees in terms) if total > 0 else 1.0
    return _normal(mean, total / (seeds * images), freedom, least, "training and which images are measured")


def nested(means: Sequence[float], *, tested: int, trained: int, least: float = 0.0) -> Mean:
    """Mean over two or more seeds, each with its own split into `trained` and `tested` images.

    The splits share most of their images, so the seeds' means are more similar than those of new images would be. Their
    variance s^2 is corrected for that: (1/seeds + tested/trained) s^2 (Nadeau and Bengio 2003, "Inference for the
    generalization error"). `least` is as in `crossed`.
    """
    values = np.asarray(means, dtype=np.float64)
    variance = (1 / len(values) + tested / max(1, trained)) * float(values.var(ddof=1))
    covers = "training and which images are measured, with a split for each seed"
    return _normal(float(values.mean()), variance, len(values) - 1, least, covers)


def by_seed(means: Sequence[float]) -> Mean:
    """Mean over seeds on fixed images: only training varies."""
    values = np.asarray(means, dtype=np.float64)
    variance = float(values.var(ddof=1)) / len(values)
    return _normal(float(values.mean()), variance, len(values) - 1, 0.0, "training")


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Two-sided p value of McNemar's exact test (1947) that two classifiers are right equally often.

    Only images (images,) on which one is right and the other wrong count; a fair coin would divide them.
    """
    from scipy import stats  # slow to import, and adapting does not need it

    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p values of several tests, adjusted for all of them together (Holm 1979)."""
    result = [1.0] * len(values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(values)), key=lambda number: values[number])):
        highest = max(highest, min(1.0, (len(values) - place) * values[number]))
        result[number] = highest
    return result


def adjusted(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs, by their `p`, with `p_adjusted` for all of them together, and whether each is `within_noise`."""
    for pair, value in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_adjusted"] = value
        pair["within_noise"] = value >= LEVEL
    return pairs


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each (cost, gain) is on the Pareto front: no other point is at least as good in both, unless equal."""
    return [
        not any(other[0] <= cost and other[1] >= gain and other != (cost, gain) for other in points)
        for cost, gain in points
    ]


def _normal(mean: float, variance: float, freedom: float, least: float, covers: str) -> Mean:
    """The mean by its estimated variance, but no surer than by the known one (`least`): few seeds agree by chance."""
    from scipy import stats

    error, known = math.sqrt(max(0.0, variance)), math.sqrt(least)
    reach = max(float(stats.t.ppf(0.975, freedom)) * error, float(stats.norm.ppf(0.975)) * known)
    if reach == 0:
        return Mean(mean, (mean, mean), 1.0 if mean == 0 else 0.0, covers)
    values = [float(2 * stats.t.sf(abs(mean) / error, freedom))] if error else []
    values += [float(2 * stats.norm.sf(abs(mean) / known))] if known else []
    return Mean(mean, (mean - reach, mean + reach), max(values), covers)
