from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from zoo.comparing.statistics import crossed, holm, mcnemar, nested, pareto


def test_one_seed_gives_the_interval_of_a_mean_over_images():
    values = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    found = crossed(values)
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values[0]))
    assert found.interval == pytest.approx(expected)
    assert "one seed says nothing about training" in found.covers


def test_seeds_that_agree_add_no_images():
    """Three seeds that say the same are as good as one: the images are no more than they were."""
    row = np.random.default_rng(0).integers(0, 2, 200).astype(float)
    one, three = crossed(row[None]), crossed(np.stack([row] * 3))
    assert three.value == one.value
    assert three.interval == pytest.approx(one.interval, rel=1e-6)


def test_seeds_that_differ_as_wholes_make_the_interval_theirs():
    """Each seed shifts every image: only the seeds count, with the few degrees of freedom that they have."""
    base = np.random.default_rng(0).normal(0, 1e-3, 1000)
    values = np.stack([base + shift for shift in (-0.1, 0.0, 0.1)])
    found = crossed(values)
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values.mean(1)))
    assert found.interval == pytest.approx(expected, rel=1e-2)


def test_the_interval_covers_as_often_as_it_says():
    """Drawn from the model itself: seeds, images and the rest at random."""
    generator = np.random.default_rng(0)
    hits, draws = 0, 600
    for _ in range(draws):
        seeds, images = generator.normal(0, 0.05, (4, 1)), generator.normal(0, 0.5, (1, 60))
        low, high = crossed(seeds + images + generator.normal(0, 0.3, (4, 60))).interval
        hits += low <= 0 <= high
    assert 0.92 < hits / draws < 0.98


def test_identical_classifiers_do_not_differ():
    found = crossed(np.zeros((3, 50)))
    assert (found.value, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_images_of_their_own_leave_the_seeds_means():
    found = nested([0.8, 0.84, 0.79])
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, 0.81, stats.sem([0.8, 0.84, 0.79])))


def test_mcnemar_counts_only_where_they_disagree():
    first = np.array([True] * 8 + [False] * 2 + [True] * 90)
    second = np.array([False] * 8 + [True] * 2 + [True] * 90)
    assert mcnemar(first, second) == pytest.approx(2 * stats.binom.cdf(2, 10, 0.5))
    assert mcnemar(first, first) == 1.0


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_pareto_front_is_what_nothing_beats():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.9), (4.0, 0.8), (1.0, 0.5)]
    assert pareto(points) == [True, True, False, True, False, True]
