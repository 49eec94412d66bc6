"""The batch size that fits and pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.toy import GROUPS, net, pieces, same, state_of
from zoo.errors import TrainingError
from zoo.recipes.planner import make_plan
from zoo.recipes.recipe import Recipe
from zoo.training import machine
from zoo.training.autotune import batch_size
from zoo.training.autotune.batch_size import FoundSize, find_batch_size
from zoo.training.loaded import facts


def search(images: int, unlabelled_ratio: int = 0) -> FoundSize:
    model, recipe = net(), Recipe(strategy="finetune", batch_size="auto")
    before = state_of(model)
    plan = make_plan(recipe, [facts(model, group) for group in GROUPS], backbone="kit/toy", dataset="noise",
                     steps_per_epoch=1, norm="live")  # fmt: skip
    accelerator = machine.make_accelerator(machine.Machine("cpu", "fp32", 1, 1))
    loaded = pieces(model, accelerator, range(images))
    found = find_batch_size(loaded, plan.phases[0], recipe, unlabelled_ratio=unlabelled_ratio)
    assert same(before, state_of(model)) and all(parameter.grad is None for parameter in model.parameters())
    return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Steps that take what they are told to: seconds per size, and a size that does not fit."""
    told: dict[str, Any] = {"seconds": {}, "held": 1000, "fails": None, "tried": []}

    def step(network: Any, size: int, *rest: Any) -> tuple[float, int]:
        told["tried"].append(size)
        if told["fails"] and size >= told["fails"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return told["seconds"].get(size, 0.01), told["held"] * size

    monkeypatch.setattr(batch_size, "try_step", step)
    return told


def test_it_grows_while_that_pays(steps: dict[str, Any]) -> None:
    steps["seconds"] = {8: 1.0, 16: 1.5, 32: 2.95, 64: 0.01}
    found = search(1000)
    assert found == FoundSize(
        16, {8: 8.0, 16: 10.7, 32: 10.8}, "the next one brings less than 5 % more images per second"
    )
    assert 64 not in steps["tried"]


def test_images_without_labels_are_tried_with_those_that_they_come_with(steps: dict[str, Any]) -> None:
    steps["seconds"] = {24: 1.0, 48: 1.5, 96: 2.95}
    found = search(1000, unlabelled_ratio=2)
    assert set(steps["tried"]) == {6, 24, 48, 96}, "two of them with each labelled one, from the first careful step on"
    assert (found.size, found.speeds) == (16, {8: 8.0, 16: 10.7, 32: 10.8}), "sizes and speeds are of labelled images"


def test_it_leaves_steps_to_learn_in(steps: dict[str, Any]) -> None:
    found = search(300)
    assert (found.size, found.why) == (32, "larger ones leave under 8 steps an epoch") and max(steps["tried"]) == 32
    assert search(40).size == 8 and search(5).size == 5, "few images make few steps either way"


def test_running_out_of_memory_ends_the_search_and_nothing_else(steps: dict[str, Any]) -> None:
    steps["fails"] = 64
    found = search(1000)
    assert (found.size, found.why) == (32, "the next one would not fit into memory")
    for fails, fits in ((8, 4), (5, 4), (2, 1)):
        steps["fails"] = fails
        found = search(1000)
        assert (found.size, found.why) == (fits, "the next one would not fit into memory") and found.speeds
    steps["fails"] = 1
    with pytest.raises(TrainingError, match="not even a batch of one image"):
        search(1000)


def test_another_fault_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> Any:
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(batch_size, "try_step", step)
    with pytest.raises(RuntimeError, match="expected scalar type"):
        search(1000)


def test_on_the_cpu_what_would_not_fit_is_not_tried(steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps["held"] = 10_000_000
    monkeypatch.setattr(batch_size, "available_memory", lambda: 800_000_000)
    found = search(1000)
    assert (found.size, found.why) == (32, "the next one would not fit into memory")
    assert max(steps["tried"]) == 32, "64 images would hold 640 MB, and take half as much again"


def test_processes_share_the_memory_and_agree(steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps["held"] = 10_000_000
    monkeypatch.setattr(batch_size, "available_memory", lambda: 800_000_000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert search(1000).size == 16


def test_with_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(130)
    assert found.size in (8, 16) and set(found.speeds) <= {8, 16} and all(speed > 0 for speed in found.speeds.values())
