"""Reading losses late, as on an accelerator, changes nothing that is written down."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.toy import GROUPS, Loader, Toy, same, state_of
from zoo.errors import TrainingError, TrainingInterrupted
from zoo.events import CheckpointSaved, StepDone
from zoo.recipes.plan import GroupPlan, PhasePlan
from zoo.recipes.recipe import Recipe
from zoo.training import async_losses
from zoo.training.async_losses import Losses, Step

RECIPE = Recipe(strategy="lp-ft", probe_epochs=2, epochs=3, lr=0.05, accumulate=2, seed=5)


def log(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses as on an accelerator, read in groups of three."""
    real = Losses.__init__

    def init(self: Losses, *args: Any) -> None:
        real(self, *args)
        self._at_once, self._alone = False, False

    monkeypatch.setattr(Losses, "__init__", init)
    monkeypatch.setattr(async_losses, "MOST", 3)


def step(number: int) -> Step:
    phase = PhasePlan("probe", 1, 9, "constant", 0.0, (GroupPlan("head", 1, 0, 0.5, 0.0, "all", "none"),))
    return Step(phase, 1, number, {"head": 0.5}, [torch.tensor([number])])


def accelerator(kind: str, processes: int = 1) -> Any:
    return SimpleNamespace(device=SimpleNamespace(type=kind), num_processes=processes)


def test_on_the_cpu_a_loss_is_known_at_its_step() -> None:
    losses = Losses(accelerator("cpu"), ["a", "b", "c"])
    (event,) = losses.add(step(1), torch.tensor([0.25]))
    assert event == StepDone("probe", 1, 1, 0.25, {"head": 0.5}) and losses.flush() == []
    with pytest.raises(TrainingError, match=r"the loss is nan at step 2 .*; nothing was updated by it"):
        losses.add(step(2), torch.tensor([float("nan")]))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_accelerator_is_asked_for_a_group_when_the_next_one_is_sent(
    monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(async_losses, "MOST", 3)
    losses = Losses(accelerator("mps", processes), list("abcdefghij"))
    known = [[event.step for event in losses.add(step(number), torch.tensor([1.0]))] for number in range(1, 8)]
    assert known == [[], [], [], [], [], [1, 2, 3], []]
    assert [event.step for event in losses.flush()] == [4, 5, 6, 7] and losses.flush() == []


def test_alone_a_slow_step_is_read_by_the_clock_and_beside_others_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_losses, "READ_EVERY", 0.0)
    alone, beside = Losses(accelerator("mps"), ["a"] * 9), Losses(accelerator("mps", 2), ["a"] * 9)
    assert [len(alone.add(step(number), torch.tensor([1.0]))) for number in (1, 2, 3)] == [0, 1, 1]
    assert [len(beside.add(step(number), torch.tensor([1.0]))) for number in (1, 2, 3)] == [0, 0, 0]


def test_what_is_trained_and_logged_does_not_depend_on_when_losses_are_read(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plain = Toy(tmp_path / "plain", RECIPE).train()
    request.getfixturevalue("late")
    late = Toy(tmp_path / "late", RECIPE).train()
    assert same(state_of(plain.model), state_of(late.model))
    assert log(tmp_path / "plain") == log(tmp_path / "late")


def test_a_run_whose_losses_are_read_late_stops_and_goes_on_alike(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plain = Toy(tmp_path / "plain", RECIPE).train()
    request.getfixturevalue("late")
    first = Toy(tmp_path / "late", RECIPE)

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    first.listeners.append(stop)
    with pytest.raises(TrainingInterrupted):
        first.train()
    second = Toy(tmp_path / "late", RECIPE).train()
    assert same(state_of(plain.model), state_of(second.model))
    assert log(tmp_path / "plain") == log(tmp_path / "late")


@pytest.mark.usefixtures("late")
def test_no_state_is_saved_from_behind_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    loader = Loader()
    toy = Toy(tmp_path, Recipe(strategy="finetune", epochs=3, lr=0.05, checkpoint_every="1 step"), loader)
    assert loader.count == 3

    def spoil(event: object) -> None:
        if isinstance(event, CheckpointSaved):
            loader.spoiled = 1

    toy.listeners.append(spoil)
    with pytest.raises(TrainingError) as caught:
        toy.train()
    assert caught.value.what == "the loss is nan at step 5 (phase finetune); what is saved is from before it"
    assert f"photo-{loader.size}.png" in caught.value.why
    (saved,) = {event.step for event in toy.heard(CheckpointSaved)}
    assert saved == 3
    state = torch.load(tmp_path / "checkpoints" / "step-000000003.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values()) and len(GROUPS) == 3
