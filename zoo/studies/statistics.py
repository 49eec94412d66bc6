"""What is more than noise: accuracies of several seeds on the same images, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.05  # a difference is called one below this, all pairs of a comparison together

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and images, and how well it is known."""

    value: float
    interval: tuple[float, float]  # 95 %
    p: float  # of a true mean of 0, two-sided
    covers: str  # what varies in the interval, in words


def share_variance(right: npt.NDArray[np.bool_]) -> float:
    """Variance of a share of images, with two images of either kind added (Agresti and Coull 1998).

    They keep it above 0 where all images are named alike: 20 of 20 are no proof of 100 %.

    Args:
        right: (images,).
    """
    count = len(right) + 4
    share = (int(right.sum()) + 2) / count
    return share * (1 - share) / count


def difference_variance(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Variance of a paired difference of shares, with half an image added of each kind (Agresti and Min 2005).

    Args:
        first: (images,), whether one classifier is right.
        second: (images,), the same of the other.
    """
    count = len(first) + 2
    gained, lost = int((first & ~second).sum()) + 0.5, int((~first & second).sum()) + 0.5
    return (gained + lost - (gained - lost) ** 2 / count) / count**2


def crossed(values: Values, *, least: float = 0.0) -> Mean:
    """Mean of values by seed and image, every seed on the same images: both count as drawn at random.

    The two-way random-effects model without repetition. The variance of the mean is (MS_images + MS_seeds - MS_rest) /
    (seeds x images), with the degrees of freedom of Satterthwaite (1946). Several seeds on the same few images do not
    make these images more; many images do not make one seed more.

    Args:
        values: (seeds, images); with one seed, only the images vary.
        least: Variance of the mean over one seed's images, by counting; the mean is never taken to be known better.
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
    # Where seeds differ less than chance would have it, their part is estimated as nothing, not as less than that.
    if of_seeds < rest:
        terms = [(of_images, images - 1)]
    elif of_images < rest:
        terms = [(of_seeds, seeds - 1)]
    total = sum(square for square, _ in terms)
    freedom = total**2 / sum(square**2 / degrees for square, degrees in terms) if total > 0 else 1.0
    return _normal(mean, total / (seeds * images), freedom, least, "training and which images are measured")


def nested(means: Sequence[float], *, tested: int, trained: int, least: float = 0.0) -> Mean:
    """Mean over seeds, each of which cut the images that train and those that test anew.

    The cuts share most of their images, so the seeds' means are more alike than those of other images would be. Their
    variance s^2 is corrected for it: (1/seeds + tested/trained) s^2 (Nadeau and Bengio 2003, "Inference for the
    generalization error").

    Args:
        means: One for each seed, two or more.
        tested: Images that a seed was measured on.
        trained: Images that it was trained on.
        least: As for `crossed`.
    """
    values = np.asarray(means, dtype=np.float64)
    variance = (1 / len(values) + tested / max(1, trained)) * float(values.var(ddof=1))
    covers = "training and which images are measured, cut anew for each seed"
    return _normal(float(values.mean()), variance, len(values) - 1, least, covers)


def by_seed(means: Sequence[float]) -> Mean:
    """Mean over seeds on images that are given: what varies is training alone."""
    values = np.asarray(means, dtype=np.float64)
    variance = float(values.var(ddof=1)) / len(values)
    return _normal(float(values.mean()), variance, len(values) - 1, 0.0, "training")


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The exact test of McNemar (1947): whether two classifiers are right equally often on the same images.

    Only the images on which one is right and the other wrong count, and a fair coin would share them out.

    Returns:
        The two-sided p value.
    """
    from scipy import stats  # takes a while to import, and adapting does not need it

    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p values of several tests, made good for all of them together (Holm 1979)."""
    adjusted = [1.0] * len(values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(values)), key=lambda number: values[number])):
        highest = max(highest, min(1.0, (len(values) - place) * values[number]))
        adjusted[number] = highest
    return adjusted


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, gain) no other beats: none costs less or as little and gains as much or more, unless it is equal."""
    return [
        not any(
            (other[0] <= cost and other[1] >= gain) and other != (cost, gain) for other in points
        )
        for cost, gain in points
    ]  # fmt: skip


def _normal(mean: float, variance: float, freedom: float, least: float, covers: str) -> Mean:
    """By the variance that was found, and no surer than by the one that is known: few seeds may agree by chance."""
    from scipy import stats

    error, known = math.sqrt(max(0.0, variance)), math.sqrt(least)
    reach = max(float(stats.t.ppf(0.975, freedom)) * error, float(stats.norm.ppf(0.975)) * known)
    if reach == 0:
        return Mean(mean, (mean, mean), 1.0 if mean == 0 else 0.0, covers)
    found = [float(2 * stats.t.sf(abs(mean) / error, freedom))] if error else []
    found += [float(2 * stats.norm.sf(abs(mean) / known))] if known else []
    return Mean(mean, (mean - reach, mean + reach), max(found), covers)
