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


def hits(share: float, count: int) -> np.ndarray:
    return (np.arange(count) < round(share * count)).astype(float)


def test_seeds_whose_cuts_overlap_say_less_than_as_many_independent_ones():
    means = (0.6, 0.9, 0.5)
    found = nested([hits(mean, 100) for mean in means], trained_on=400)
    error = np.std(means, ddof=1) * (1 / 3 + 100 / 400) ** 0.5
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, np.mean(means), error))


def test_seeds_that_agree_by_chance_leave_open_what_their_images_do():
    gains = np.zeros(40)
    gains[0] = 1.0  # one image better, with both seeds
    found = nested([gains, gains], 160, (-1.0, 1.0))
    assert found.interval[0] < 0 < found.interval[1] and found.p > 0.3
    perfect = nested([np.ones(20)] * 3, 80)
    assert perfect.interval[0] < 0.95 and perfect.value == 1.0


def test_seeds_cut_anew_cover_as_often_as_they_say():
    """Many data sets of 100 images, of which every seed measures 20 that it draws."""
    generator = np.random.default_rng(1)
    inside, draws = 0, 400
    for _ in range(draws):
        right = generator.random(100) < 0.8
        rows = [generator.permutation(right)[:20].astype(float) for _ in range(3)]
        low, high = nested(rows, trained_on=80).interval
        inside += low <= 0.8 <= high
    assert inside / draws > 0.93


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
