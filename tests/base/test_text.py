from __future__ import annotations

from typing import Any

import pytest

from zoo.base import text
from zoo.base.text import DASH


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.934, "93.4%"),
        (1.0, "100.0%"),
        (0.9996, "99.9%"),
        (0.0, "0.0%"),
        (None, DASH),
        (float("nan"), DASH),
    ],
)
def test_percent(share: Any, expected: str) -> None:
    assert text.percent(share) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.08, "0.080"), (0.001, "0.001"), (0.00099, "< 0.001"), (0.0, "< 0.001"), (None, DASH)]
)
def test_a_p_value_is_never_shown_as_0(p: Any, expected: str) -> None:
    assert text.p_value(p) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.96, "1 min 00 s"),
        (72, "1 min 12 s"),
        (7500, "2 h 05 min"),
        (59.7, "1 min 00 s"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
        (None, DASH),
    ],
)
def test_duration(seconds: Any, expected: str) -> None:
    assert text.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.001, "0.001"), (3.125e-5, "3.13e-5"), (5e-4, "0.0005"), (0, "0"), (1, "1")]
)
def test_rate(value: float, expected: str) -> None:
    assert text.rate(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(25_557_032, "25.6 M"), (999_999, "1 M"), (512, "512"), (2_570, "2.57 k"), (138_357_544, "138 M"), (None, DASH)],
)
def test_compact(value: float, expected: str) -> None:
    assert text.compact(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(10, "10 B"), (12_340, "12.3 kB"), (210_000_000, "210 MB"), (1_900_000_000, "1.9 GB"), (None, DASH)],
)
def test_size(value: Any, expected: str) -> None:
    assert text.size(value) == expected


def test_counts_and_their_nouns() -> None:
    assert text.plural(1, "epoch") == "1 epoch" and text.plural(1250, "step") == "1,250 steps"
    assert text.plural(2, "class", "classes") == "2 classes" and text.count(None) == DASH


@pytest.mark.parametrize(
    ("bounds", "expected"), [([0.912, 0.95], "91.2 to 95.0%"), (None, DASH), ([0.9], DASH), ([None, 1.0], DASH)]
)
def test_interval(bounds: Any, expected: str) -> None:
    assert text.interval(bounds) == expected


def test_columns_of_numbers_align_to_the_right() -> None:
    assert text.aligned([("name", "n"), ("a", "10"), ("long", "9")], ["n"]) == ["name   n", "a     10", "long   9"]
