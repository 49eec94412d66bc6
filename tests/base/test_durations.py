from __future__ import annotations

import pytest

from zoo.base.durations import Interval, parse_interval
from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Interval(seconds=90)),
        ("10m", Interval(seconds=600)),
        ("1.5 h", Interval(seconds=5400)),
        ("1 step", Interval(steps=1)),
        ("500 steps", Interval(steps=500)),
        ("10m, 500 steps", Interval(seconds=600, steps=500)),
        ("500steps,10m", Interval(seconds=600, steps=500)),
    ],
)
def test_times_and_steps_are_read(text: str, expected: Interval) -> None:
    assert parse_interval(text) == expected


@pytest.mark.parametrize("text", ["", "10", "0m", "0 steps", "-5 steps", "1m, 2m", "5 steps, 5 steps", "often", "1m,"])
def test_anything_else_is_refused_by_the_recipe(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        parse_interval(text)
    with pytest.raises(RecipeError, match="the recipe has an invalid choice") as caught:
        Recipe(checkpoint_every=text)
    assert "checkpoint_every: " in caught.value.why


def test_whichever_comes_first() -> None:
    both = Interval(seconds=60, steps=10)
    assert not both.is_over(59, 9)
    assert both.is_over(60, 1) and both.is_over(1, 10)
    assert not Interval(steps=10).is_over(1e9, 9) and not Interval(seconds=60).is_over(59, 10**9)
