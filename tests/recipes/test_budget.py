from __future__ import annotations

import pytest

from zoo.errors import RecipeError
from zoo.recipes.budget import Budget, with_epochs
from zoo.recipes.recipe import Phase, Recipe


@pytest.mark.parametrize(
    ("text", "seconds", "steps"),
    [("90s", 90, None), ("10m", 600, None), ("1.5h", 5400, None), ("0.5 h", 1800, None), ("500steps", None, 500),
     ("500-steps", None, 500), ("1 step", None, 1)],
)  # fmt: skip
def test_a_budget_is_a_time_or_a_number_of_steps(text, seconds, steps):
    assert Budget.parse(text) == Budget(seconds, steps)
    assert Budget.parse(str(Budget.parse(text))) == Budget(seconds, steps), "it is written as it can be read"


@pytest.mark.parametrize("text", ["10", "", "0m", "0steps", "-5m", "1.5steps", "ten minutes", "10m30s", "infs"])
def test_anything_else_is_refused(text):
    with pytest.raises(RecipeError, match="a budget is a time or a number of steps") as caught:
        Budget.parse(text)
    assert caught.value.fix == "write it as 90s, 10m, 2h or 500steps"


@pytest.mark.parametrize(
    ("recipe", "epochs", "shared"),
    [
        (Recipe(), 20, [10, 10]),
        (Recipe(), 5, [3, 2]),  # the cheaper epochs are rounded up
        (Recipe(), 2, [1, 1]),
        (Recipe(epochs=30, probe_epochs=10), 8, [2, 6]),
        (Recipe(probe_epochs=0), 7, [7]),
        (Recipe(strategy="probe"), 3, [3]),
        (Recipe(strategy="gradual"), 11, [2, 2, 2, 5]),
        (Recipe(strategy="gradual"), 4, [1, 1, 1, 1]),
        (Recipe(strategy="scratch"), 1, [1]),
    ],
)
def test_epochs_are_shared_out_in_the_recipes_proportion(recipe, epochs, shared):
    assert [phase.epochs for phase in with_epochs(recipe, epochs).expand()] == shared


def test_every_phase_keeps_an_epoch_and_none_is_lost():
    for strategy in ("lp-ft", "gradual"):
        for epochs in range(4, 60):
            phases = with_epochs(Recipe(strategy=strategy), epochs).expand()
            assert sum(phase.epochs for phase in phases) == epochs
            assert min(phase.epochs for phase in phases) >= 1


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(RecipeError, match=r"1 epoch\(s\) are too few for 2 phases"):
        with_epochs(Recipe(), 1)
    with pytest.raises(RecipeError, match="the phases of this recipe give them already"):
        with_epochs(Recipe(phases=(Phase("all", 3, 1e-3, "all"),)), 5)
