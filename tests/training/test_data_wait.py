"""How long training waits for images: measured while it trains, estimated before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.toy import Loader, Toy, pieces
from zoo.data import Batch
from zoo.recipes.plan import PhasePlan
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.cost import Cost, estimate, try_step
from zoo.training.losses.objective import Objective
from zoo.training.state.checkpoint import load_checkpoint

RECIPE = Recipe(strategy="probe", epochs=2, batch_size=4)


class Slow(Loader):
    """A loader whose batches take a while."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(epoch, start_step):
            time.sleep(0.02)
            yield batch


def test_the_time_until_a_batch_is_there_is_counted_and_kept(tmp_path: Path) -> None:
    quick, slow = Toy(tmp_path / "quick", RECIPE).train(), Toy(tmp_path / "slow", RECIPE, Slow()).train()
    waited = slow.session.position.waited
    assert 6 * 0.02 <= waited < slow.session.seconds
    assert quick.session.position.waited < waited
    state, _ = load_checkpoint(tmp_path / "slow" / "checkpoints")
    assert state is not None and state["position"]["waited"] == waited
    assert quick.session.position.loss_sum == slow.session.position.loss_sum


def priced(toy: Toy, seconds_per_image: float, *, hidden: bool, objective: Objective | None = None) -> Cost:
    loaded = pieces(toy.model, toy.accelerator, range(12), range(8))
    work: Any = SimpleNamespace(settled=RECIPE, objective=objective or Objective())
    found = estimate(toy.plan, loaded, work, {}, seconds_per_image=seconds_per_image, hidden=hidden)
    return found["probe"].whole


def test_what_is_loaded_beside_the_training_costs_only_what_takes_longer(tmp_path: Path) -> None:
    toy = Toy(tmp_path, RECIPE)
    images = 2 * 3 * 4  # of all steps
    seen = priced(toy, 1.0, hidden=False)
    assert seen.waiting == pytest.approx(images)
    assert images < seen.seconds < images + 5
    behind = priced(toy, 1.0, hidden=True)
    assert images - 5 < behind.waiting < images
    assert priced(toy, 1e-9, hidden=True).waiting == 0.0


def test_going_back_several_times_takes_memory_and_is_done(tmp_path: Path) -> None:
    class Thrice(Objective):
        def backwards(self, phase: PhasePlan) -> int:
            return 3

    toy = Toy(tmp_path, RECIPE)
    once, thrice = (priced(toy, 0.0, hidden=True, objective=each) for each in (Objective(), Thrice()))
    gradients = 4 * sum(tensor.numel() for tensor in toy.model.fc.parameters())
    assert thrice.memory == once.memory + 5 * gradients, "one from each of two ways back, and three to reckon with"
    times: list[int] = []
    toy.model.fc.weight.register_hook(lambda gradient: times.append(1))
    try_step(toy.model, 2, (3, 6, 6), toy.accelerator, torch.float32, 3)
    assert len(times) == 3
