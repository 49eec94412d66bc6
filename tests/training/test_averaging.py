"""Averages of weights, and that a run which is stopped anywhere keeps what they are made of."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.training.toy import Toy, same, state_of
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import EpochDone, StepDone
from zoo.recipes.recipe import Recipe
from zoo.training.averaging import SHARES, Ingredient, Sum, greedy, interpolate, wise_ft
from zoo.training.state.checkpoint import load_checkpoint, needed_files
from zoo.training.state.position import START_FILE, epoch_file

RECIPE = Recipe(strategy="lp-ft", probe_epochs=2, epochs=4, lr=0.05, soup=True, soup_keep=2, wise="sweep", seed=5)


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"body": torch.full((3,), value), "head": torch.full((2,), value), "count": torch.tensor(int(value))}


def test_a_mean_of_equal_weights_is_these_weights_to_the_bit():
    odd = {"body": torch.rand(1000) * 0.1 + 1e-7, "half": torch.rand(9).half(), "count": torch.tensor(7)}
    assert same(Sum(odd).plus(odd).plus(odd).mean(), odd)
    assert same(interpolate(odd, odd, 0.3), odd)


def test_a_mean_leaves_the_sum_before_as_it_was():
    first = Sum(weights(1.0))
    more = first.plus(weights(4.0)).mean()
    assert more["body"].tolist() == [2.5] * 3 and more["count"] == 1
    assert first.mean()["body"].tolist() == [1.0] * 3


def test_the_line_between_two_networks():
    start, end = weights(1.0), weights(3.0)
    assert interpolate(start, end, 0.25)["body"].tolist() == [1.5] * 3
    assert same(interpolate(start, end, 1.0), end)
    kept = interpolate(start, end, 0.0, keep=("head",))
    assert kept["body"].tolist() == [1.0] * 3 and kept["head"].tolist() == [3.0] * 2
    assert kept["count"] == 3, "counts are the end's"


def by_value(wanted: float):
    """The nearer the first weight is to a value, the better."""
    return lambda state: {"accuracy": 1.0 - abs(float(state["body"][0]) - wanted) / 10, "loss": 1.0, "refinement": 1.0}


def test_a_greedy_soup_takes_what_makes_it_no_worse():
    pot = [Ingredient({"epoch": n}, lambda n=n: weights(n)) for n in (1.0, 9.0, 4.0, 6.0)]
    soup = greedy(pot, by_value(5.0), "accuracy")
    rows = {row["epoch"]: row for row in soup.rows}
    # 6 and 4 are equally near: of equals the later comes first. With 4 it is exactly 5; 9 and 1 only spoil it.
    assert [row["epoch"] for row in soup.rows] == [6.0, 4.0, 9.0, 1.0]
    assert {epoch for epoch, row in rows.items() if row["kept"]} == {6.0, 4.0} and soup.kept == 2
    assert soup.state["body"].tolist() == [5.0] * 3 and soup.scores["accuracy"] == 1.0
    assert rows[6.0]["with"] is None and rows[9.0]["with"]["accuracy"] == pytest.approx(1.0 - (19 / 3 - 5) / 10)


def test_a_soup_of_one_is_that_one():
    soup = greedy([Ingredient({}, lambda: weights(2.0))], by_value(5.0), "accuracy")
    assert same(soup.state, weights(2.0)) and soup.kept == 1


def test_a_sweep_takes_the_best_share_and_of_equal_ones_the_nearest_to_the_end():
    start, end = weights(0.0), weights(10.0)
    line = wise_ft(start, end, "sweep", by_value(3.0), "accuracy")
    assert line.share == 0.3 and line.state["body"][0] == 3.0
    assert [row["alpha"] for row in line.rows] == list(SHARES)
    assert [row["alpha"] for row in line.rows if row["kept"]] == [0.3]
    assert wise_ft(start, end, "sweep", by_value(3.5), "accuracy").share == 0.4


def test_a_share_that_is_asked_for_is_taken_with_both_ends_beside_it():
    line = wise_ft(weights(0.0), weights(10.0), 0.9, by_value(0.0), "accuracy")
    assert line.share == 0.9 and [(row["alpha"], row["kept"]) for row in line.rows] == [
        (0, False),
        (0.9, True),
        (1, False),
    ]


def test_a_run_keeps_its_start_and_its_best_epochs_and_nothing_more(tmp_path):
    starts: list[dict[str, torch.Tensor]] = []
    toy = Toy(tmp_path, RECIPE)
    toy.listeners.append(
        lambda event: (
            starts.append(state_of(toy.model))
            if isinstance(event, EpochDone) and (event.phase, event.epoch) == ("probe", 2)
            else None
        )
    )
    toy.train()
    at = toy.session.position
    assert at.start["after"] == "probe" and same(load_file(tmp_path / "checkpoints" / START_FILE), starts[0])
    assert len(at.epochs_kept) == 2 and {entry["phase"] for entry in at.epochs_kept} == {"finetune"}
    assert at.best["phase"] == "finetune", "the end is one in which the body trained"
    best = max(event.val_accuracy for event in toy.heard(EpochDone) if event.phase == "finetune")
    assert best in {entry["accuracy"] for entry in at.epochs_kept}
    there = {path.name for path in (tmp_path / "checkpoints").glob("*.safetensors")}
    assert there == at.weights().keys() | needed_files(tmp_path / "checkpoints")
    # Two saved states, each with its best and its epochs; one start.
    assert len(there) <= 2 * (RECIPE.soup_keep + 1) + 1


def test_the_start_of_an_average_is_the_average(tmp_path):
    toy = Toy(tmp_path, replace(RECIPE, ema=0.9, probe_epochs=1, epochs=1))
    raw: list[dict[str, torch.Tensor]] = []
    toy.listeners.append(lambda event: raw.append(state_of(toy.model)) if isinstance(event, EpochDone) else None)
    toy.train()
    assert not same(load_file(tmp_path / "checkpoints" / START_FILE), raw[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("whole"), RECIPE).train()


@pytest.mark.parametrize("stop", [6, 7, 12, 14, 17])  # the body trains from step 7 on
def test_a_resumed_run_keeps_the_same_weights(tmp_path, whole, stop):
    first = Toy(tmp_path / "cut", RECIPE)

    def watch(event: object) -> None:
        if isinstance(event, StepDone) and event.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    first.listeners.append(watch)
    with pytest.raises(TrainingInterrupted):
        first.train()
    second = Toy(tmp_path / "cut", RECIPE).train()
    one, other = whole.session.position, second.session.position
    assert one.weights() == other.weights() and len(one.weights()) == 4
    assert one.epochs_kept == other.epochs_kept and one.start == other.start
    for name in one.weights():
        assert same(second.session.read_weights(name), whole.session.read_weights(name))


def test_a_state_is_of_no_use_without_the_epochs_that_it_keeps(tmp_path):
    toy = Toy(tmp_path, RECIPE).train()
    step = toy.session.position.epochs_kept[0]["step"]
    path = tmp_path / "checkpoints" / epoch_file(step)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    _, damaged = load_checkpoint(tmp_path / "checkpoints")
    assert f"({path.name} is damaged" in damaged[0]
    with pytest.raises(RunError, match=f"the saved weights of the run are damaged: .*{path.name}"):
        toy.session.read_weights(path.name)


def test_wise_needs_a_body_that_trains(tmp_path):
    with pytest.raises(RecipeError, match="no phase trains anything but the head"):
        Toy(tmp_path, Recipe(strategy="probe", wise=0.5))
    with pytest.raises(RecipeError) as caught:
        Recipe(strategy="scratch", wise=0.5)
    assert "wise: random weights are no start to average with" in caught.value.why
