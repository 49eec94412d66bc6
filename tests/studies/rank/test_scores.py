"""The scores against hand-made cases, and against their definitions written out in full."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from zoo.errors import DataError
from zoo.studies.rank.order import places
from zoo.studies.rank.scores import h_score, log_me, neighbours
from zoo.training.probe import FOLDS, cross_validated


def blobs(distance: float, *, count: int = 60, width: int = 6, classes: int = 3, seed: int = 0):
    """Gaussian classes whose centres are so far from the origin, each along an axis of its own."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = generator.normal(size=(count, width))
    features[np.arange(count), labels] += distance
    return features, labels


def log_evidence(features, target, alpha, beta):
    """log N(y | 0, I / beta + F F' / alpha), the evidence of a linear model by its definition, in nats per image."""
    covariance = np.eye(len(features)) / beta + features @ features.T / alpha
    return stats.multivariate_normal.logpdf(target, np.zeros(len(features)), covariance) / len(features)


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)], ids=["more images than features", "fewer"])
def test_log_me_is_the_largest_evidence(shape):
    count, width = shape
    features, labels = blobs(2.0, count=count, width=width)
    largest = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)

        def negative(logs, target=target):
            return -log_evidence(features, target, *np.exp(logs))

        found = optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-8})
        largest.append(-found.fun)
    assert log_me(features, labels) == pytest.approx(np.mean(largest), abs=2e-4)


def test_log_me_of_few_images_that_features_tell_apart_is_a_number():
    """As many directions as images explain all of it: what is left for noise is next to nothing, and was once 0."""
    generator = np.random.default_rng(1)
    labels = np.arange(12) % 2
    features = 0.3 * generator.normal(size=(12, 64)) + 6 * labels[:, None] * generator.normal(size=64)
    assert np.isfinite(log_me(features.astype(np.float32), labels))


def test_log_me_goes_by_the_classes_that_are_there():
    features, labels = blobs(2.0)
    assert np.isfinite(log_me(features, labels * 5)), "a class without images has no labels to explain"


def test_h_score_is_its_definition_where_nothing_has_to_be_shrunk():
    generator = np.random.default_rng(0)
    labels = np.arange(9000) % 3
    features = generator.normal(size=(9000, 2)) @ np.array([[2.0, 0.3], [0.0, 0.5]])
    features += np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])[labels]
    means = np.stack([features[labels == label].mean(0) for label in range(3)])[labels]
    plain = np.trace(np.linalg.inv(np.cov(features.T, bias=True)) @ np.cov(means.T, bias=True))
    assert h_score(features, labels) == pytest.approx(plain, rel=5e-3)
    assert 0 < plain < 2, "at most one less than there are classes"


def test_h_score_of_a_covariance_that_cannot_be_inverted_is_the_shrunk_one():
    from sklearn.covariance import ledoit_wolf

    features, labels = blobs(3.0, count=12, width=40)
    centred = features - features.mean(0)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    means = np.stack([centred[labels == label].mean(0) for label in range(3)])[labels]
    between = means.T @ means / len(means)
    expected = (1 - shrinkage) * np.trace(np.linalg.inv(covariance) @ between)
    assert h_score(features, labels) == pytest.approx(expected)
    assert h_score(features, labels) < 3


def test_neighbours_leave_the_image_itself_out():
    labels = np.array([0, 0, 1, 1])
    near = np.array([[1.0, 0.1], [1.0, 0.0], [0.1, 1.0], [0.0, 1.0]])
    assert neighbours(near, labels, 1) == 1.0
    crossed = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01], [0.01, 1.0]])
    assert neighbours(crossed, labels, 1) == 0.0, "each one's nearest is of the other class"
    assert neighbours(np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, 7.0]]), labels, 1) == 1.0, (
        "length is no matter"
    )


def test_neighbours_of_many_images_are_those_of_few(monkeypatch):
    features, labels = blobs(2.0, count=100)
    whole = neighbours(features, labels)
    monkeypatch.setattr("zoo.studies.rank.scores._BLOCK", 7)
    assert neighbours(features, labels) == whole


@pytest.mark.parametrize("score", [log_me, h_score, neighbours])
def test_every_score_prefers_features_that_tell_the_classes_apart(score):
    found = [score(*blobs(distance)) for distance in (0.0, 1.5, 6.0)]
    assert found == sorted(found) and found[0] < found[-1]


def test_the_probe_judges_images_that_it_was_not_fitted_on():
    noise, labels = blobs(0.0, count=60, width=200)
    guess = cross_validated(noise, labels, seed=0)
    assert guess.accuracy < 0.55, "200 random features explain 60 labels perfectly, but only those fitted on"
    clear = cross_validated(*blobs(8.0), seed=0)
    assert clear.accuracy > 0.95 and clear.loss < guess.loss and clear.folds == FOLDS
    assert clear.right.shape == (60,)
    again = cross_validated(*blobs(8.0), seed=0)
    assert (again.right == clear.right).all()


def test_the_probe_makes_do_with_two_images_of_a_class_and_refuses_one():
    features, labels = blobs(8.0, count=8, classes=4)
    assert cross_validated(features, labels, seed=0).folds == 2
    rare = np.repeat(np.arange(4), [2, 2, 30, 30])
    many = np.eye(4)[rare] * 8 + np.random.default_rng(0).normal(size=(64, 4))
    found = cross_validated(many, rare, seed=0, uneven=True)
    assert found.folds == FOLDS and found.accuracy > 0.9 and np.isfinite(found.loss)
    assert cross_validated(many, rare, seed=0).folds == 2
    with pytest.raises(DataError, match="too few images to test features on"):
        cross_validated(features[:5], labels[:5], seed=0)


def test_places_say_how_sure_the_order_is():
    generator = np.random.default_rng(1)
    hard = generator.random(400)
    good, alike, bad = hard < 0.8, hard < 0.8, hard < 0.3
    first, second, last = places([good, alike, bad])
    assert first.best == second.best == pytest.approx(0.5), "the same answers share the first place"
    assert last.best == 0.0
    assert (first.ranks, second.ranks, last.ranks) == ((1, 1), (1, 1), (3, 3))
    low, high = first.interval
    assert low < good.mean() < high and high - low < 0.1
    sure, none = places([np.ones(40, dtype=bool), np.zeros(40, dtype=bool)])
    assert sure.interval[1] == 1.0 and sure.interval[0] == pytest.approx(0.912, abs=1e-3), "40 of 40 are no certainty"
    assert none.interval == pytest.approx((0.0, 0.088), abs=1e-3)
    a, b = places([hard < 0.80, np.roll(hard, 7) < 0.79])
    assert 0.2 < b.best < 0.6 and a.best + b.best == pytest.approx(1.0)
    assert a.ranks == b.ranks == (1, 2)
