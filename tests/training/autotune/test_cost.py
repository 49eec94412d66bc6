"""What a step takes, from steps on few images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.toy import Toy, pieces
from zoo.recipes.recipe import Recipe
from zoo.training.autotune import cost
from zoo.training.losses.objective import Objective

RECIPE = Recipe(strategy="finetune", epochs=2, batch_size=64)


@pytest.mark.parametrize(
    ("weights", "image", "expected"),
    [(1.0, 0.01, 1.64), (0.0, 0.1, 6.4), (0.001, 0.001, 0.065)],
    ids=["mostly for the weights", "all for the images", "quick, at its full size"],
)  # fmt: skip
def test_a_step_takes_what_its_weights_and_its_images_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: float, image: float, expected: float
) -> None:
    monkeypatch.setattr(cost, "try_step", lambda network, images, *_: (weights + image * images, 100 * images))
    assert seconds_of_a_step(Toy(tmp_path, RECIPE)) == pytest.approx(expected, rel=0.05)


def test_a_slow_moment_makes_a_step_no_longer_than_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "try_step", lambda network, images, *_: (9.0 if images == 8 else 1.0, 0))
    assert seconds_of_a_step(Toy(tmp_path, RECIPE)) == pytest.approx(16.0, rel=0.05)


def seconds_of_a_step(toy: Toy) -> float:
    (phase,) = toy.plan.phases
    plan = replace(toy.plan, phases=(replace(phase, epochs=1, steps_per_epoch=1),))
    loaded = pieces(toy.model, toy.accelerator, range(64))
    work: Any = SimpleNamespace(settled=RECIPE, objective=Objective())
    found = cost.estimate(plan, loaded, work, {}, seconds_per_image=0.0, hidden=True)
    return found[phase.name].whole.seconds
