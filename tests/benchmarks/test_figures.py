from __future__ import annotations

import pytest

from benchmarks import figures


def test_sides_take_turns_at_going_first():
    assert list(figures.alternate(("zoo", "peer"), 3)) == [
        (0, "zoo"), (0, "peer"), (1, "peer"), (1, "zoo"), (2, "zoo"), (2, "peer"),
    ]  # fmt: skip


def test_the_interval_is_students():
    mean, half = figures.mean_interval([0.90, 0.92, 0.94])
    assert mean == pytest.approx(0.92)
    assert half == pytest.approx(4.302653 * 0.02 / 3**0.5)  # t for 2 degrees of freedom
    assert figures.mean_interval([0.9]) == (0.9, None)


def test_a_single_seed_shows_no_interval():
    assert figures.percent([0.571]) == "57.1"
    assert figures.percent([0.5, 0.5]) == "50.0 ± 0.0"
    assert figures.points_apart([0.012]) == "+1.2"
    assert figures.points_apart([-0.01, -0.01]) == "-1.0 ± 0.0"


def test_a_curve_shows_the_model_that_is_kept():
    points = [
        {"seconds": 1.0, "accuracy": 0.5, "best": True},
        {"seconds": 2.0, "accuracy": 0.9, "best": False},  # its own validation images did not say so
        {"seconds": 3.0, "accuracy": 0.6, "best": True},
    ]
    assert figures.curve(points, 3.5, 0.61) == [(1.0, 0.5), (2.0, 0.5), (3.0, 0.6), (3.5, 0.61)]
    latest = [{"seconds": 1.0, "accuracy": 0.5}, {"seconds": 2.0, "accuracy": 0.4}]
    assert figures.curve(latest, 2.0, 0.4) == [(1.0, 0.5), (2.0, 0.4), (2.0, 0.4)]
    assert figures.curve([], 5.0, 0.7) == [(5.0, 0.7)]


def test_time_to_an_accuracy_is_the_first_time():
    points = [(1.0, 0.3), (2.0, 0.6), (3.0, 0.5), (4.0, 0.7)]
    assert figures.time_to(points, 0.6) == 2.0
    assert figures.time_to(points, 0.61) == 4.0
    assert figures.time_to(points, 0.71) is None
