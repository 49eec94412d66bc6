from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from zoo.studies.statistics import by_seed, crossed, difference_variance, holm, mcnemar, nested, pareto, share_variance


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


def test_seeds_alone_give_the_interval_of_a_mean_over_seeds():
    found = by_seed([0.8, 0.84, 0.79])
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, 0.81, stats.sem([0.8, 0.84, 0.79])))


def test_cuts_that_share_their_images_widen_the_interval():
    """(1/J + n_test/n_train) s^2 instead of s^2 / J: Nadeau and Bengio (2003)."""
    found = nested([0.8, 0.84, 0.79], tested=200, trained=700)
    error = np.sqrt((1 / 3 + 200 / 700) * np.var([0.8, 0.84, 0.79], ddof=1))
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, 0.81, error))
    assert found.p == pytest.approx(2 * stats.t.sf(0.81 / error, 2))


def test_equal_means_of_two_seeds_are_no_certainty():
    perfect = np.ones(20, dtype=bool)
    found = nested([1.0, 1.0], tested=20, trained=70, least=share_variance(perfect))
    assert found.interval[0] < 0.9 and found.interval[1] > 1
    same = crossed(np.ones((2, 20)), least=share_variance(perfect))
    assert same.interval == pytest.approx(found.interval)
    first, second = perfect, np.arange(20) > 0  # one image of 20 makes the difference
    known = difference_variance(first, second)
    for tested in (nested([0.05, 0.05], tested=20, trained=70, least=known),
                   crossed(np.stack([first.astype(float) - second] * 2), least=known)):  # fmt: skip
        assert tested.interval[0] < 0 < tested.interval[1] and tested.p > 0.05


def test_the_least_variance_is_that_of_counts_with_a_little_added():
    right = np.arange(100) < 90
    assert share_variance(right) == pytest.approx((92 / 104) * (12 / 104) / 104)
    assert difference_variance(right, right) == pytest.approx(1 / 102**2)
    other = np.arange(100) >= 5  # right on 10 where the first is wrong, wrong on 5 where it is right
    assert difference_variance(right, other) == pytest.approx((16 - 5**2 / 102) / 102**2)


def test_a_test_on_cuts_of_one_set_finds_nothing_where_there_is_nothing():
    """Two classifiers that are equally good, on three cuts of 300 images, each testing on 60 and training on 240."""
    generator = np.random.default_rng(0)
    wrong = {"naive": 0, "corrected": 0}
    for _ in range(400):
        first, second = (generator.random(300) < 0.8 for _ in range(2))
        cuts = [generator.permutation(300)[:60] for _ in range(3)]
        gains = [float((first[cut].astype(float) - second[cut]).mean()) for cut in cuts]
        least = np.mean([difference_variance(first[cut], second[cut]) for cut in cuts])
        wrong["naive"] += by_seed(gains).p < 0.05
        wrong["corrected"] += nested(gains, tested=60, trained=240, least=least).p < 0.05
    assert wrong["corrected"] / 400 < 0.06 < wrong["naive"] / 400


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
