"""What is more than noise: accuracies of several seeds on the same images, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

LEVEL = 0.05  # a difference is called one below this, all pairs of a comparison together

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and images, and how well it is known."""

    value: float
    interval: tuple[float, float]  # 95 %
    p: float  # of a true mean of 0, two-sided
    covers: str  # what varies in the interval, in words


def crossed(values: Values) -> Mean:
    """Mean of values by seed and image, every seed on the same images: both count as drawn at random.

    The two-way random-effects model without repetition. The variance of the mean is (MS_images + MS_seeds - MS_rest) /
    (seeds x images), with the degrees of freedom of Satterthwaite (1946). Several seeds on the same few images do not
    make these images more; many images do not make one seed more.

    Args:
        values: (seeds, images); with one seed, only the images vary.
    """
    seeds, images = values.shape
    mean = float(values.mean())
    if images < 2:
        return Mean(mean, (-math.inf, math.inf), 1.0, "nothing: there is one image")
    if seeds == 1:
        variance = float(values[0].var(ddof=1)) / images
        return _normal(mean, variance, images - 1, "which images are measured; one seed says nothing about training")
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
    return _normal(mean, total / (seeds * images), freedom, "training and which images are measured")


def nested(rows: Sequence[Values], trained_on: int, span: tuple[float, float] = (0.0, 1.0)) -> Mean:
    """Mean over seeds, each of which was measured on images of its own, cut from the same data.

    The seeds' means carry both kinds of noise, but their cuts overlap, so they are no independent draws: the variance
    of the mean is (1/seeds + measured/trained) times that of the seeds' means (Nadeau and Bengio 2003, "Inference for
    the Generalization Error"). That is taken to be no less than what the images of one seed alone leave open, or a few
    seeds that agree by chance would leave nothing.

    Args:
        rows: For each seed, the values of its images, (images,).
        trained_on: Images that each seed left to train on.
        span: The least and the largest value there can be. One more image with each keeps images that are all alike
            from leaving nothing open (as the rule of Agresti and Coull 1998 does).
    """
    means = np.asarray([row.mean() for row in rows])
    images = min(len(row) for row in rows)
    one = float(np.mean([np.append(row, span).var() / (len(row) + 2) for row in rows]))
    between = float(means.var(ddof=1))
    variance = (1 / len(rows) + images / max(1, trained_on)) * max(between, one)
    freedom = len(rows) - 1 if between > one else images - 1
    covers = "training and which images are measured, cut anew for each seed"
    return _normal(float(means.mean()), variance, max(1, freedom), covers)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The exact test of McNemar (1947): whether two classifiers are right equally often on the same images.

    Only the images on which one is right and the other wrong count, and a fair coin would share them out.

    Returns:
        The two-sided p value.
    """
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue)


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


def _normal(mean: float, variance: float, freedom: float, covers: str) -> Mean:
    if variance <= 0:
        return Mean(mean, (mean, mean), 1.0 if mean == 0 else 0.0, covers)
    error = math.sqrt(variance)
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * error
    return Mean(mean, (mean - reach, mean + reach), float(2 * scipy.stats.t.sf(abs(mean) / error, freedom)), covers)
