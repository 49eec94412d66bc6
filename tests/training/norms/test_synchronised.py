"""Batch norm over all processes. Its statistics need two GPUs to be seen; all else is looked at on the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from timm.layers import SyncBatchNormAct
from torch import nn

import zoo
from tests.training.toy import GROUPS, Toy, net, pieces, same, state_of
from zoo.errors import TrainingError
from zoo.events import ignore
from zoo.models.layer_groups import assign
from zoo.models.lookup import get
from zoo.models.spec import Weights
from zoo.recipes.recipe import Recipe
from zoo.runs import prepare
from zoo.training.loaded import Loaded
from zoo.training.losses.objective import Joined
from zoo.training.norms import policy
from zoo.training.norms import synchronised as synchronising
from zoo.training.norms.synchronised import synchronised, synchronises


def processes(device: str, count: int) -> Any:
    return SimpleNamespace(device=SimpleNamespace(type=device), num_processes=count)


TWO = processes("cuda", 2)


def kinds(model: nn.Module) -> dict[str, type]:
    return {path: type(module) for path, module in model.named_modules() if "Norm" in type(module).__name__}


def phase_of(tmp_path: Path, norm: str = "live", **choices: Any) -> Any:
    return Toy(tmp_path, Recipe(strategy="finetune", epochs=1, **choices), norm=norm).plan.phases[-1]


def test_several_processes_on_cuda_share_statistics_and_none_else() -> None:
    assert synchronises(net(), TWO)
    assert not synchronises(net(), processes("cuda", 1))
    assert not synchronises(net(), processes("cpu", 2))


def test_norms_of_a_kind_of_their_own_stay_as_they_are() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(images)

    model = net()
    model.after = Own(4)
    assert not synchronises(model, TWO)
    model = net()
    model.norm.register_forward_hook(lambda *given: None)  # it would be lost
    assert not synchronises(model, TWO)


def test_live_norms_are_others_inside_and_the_very_same_after(tmp_path: Path) -> None:
    model = net()
    before, parameters, modules = state_of(model), list(model.parameters()), list(model.named_modules())
    with synchronised(model, GROUPS, phase_of(tmp_path), TWO):
        assert kinds(model) == {"norm": nn.SyncBatchNorm, "after": nn.SyncBatchNorm}
        assert [name for name, _ in model.named_modules()] == [name for name, _ in modules]
        assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
        model(torch.randn(8, 3, 6, 6))  # in one process they do what batch norm does
        after = state_of(model)
    assert list(after) == list(before)
    assert int(model.norm.num_batches_tracked) == 1 and same(after, state_of(model)), "what they counted stays"
    assert all(now is then for (_, now), (_, then) in zip(model.named_modules(), modules, strict=True))


@pytest.mark.parametrize(("choices", "live"), [
    ({"norm": "fixed"}, set()),
    ({"train_from": "middle"}, {"after"}),
    ({"train_from": "head"}, set()),
], ids=str)  # fmt: skip
def test_norms_that_are_still_are_left_alone(tmp_path: Path, choices: dict[str, Any], live: set[str]) -> None:
    model, norm = net(), choices.pop("norm", "live")
    with synchronised(model, GROUPS, phase_of(tmp_path, norm, **choices), TWO):
        assert {path for path, kind in kinds(model).items() if kind is nn.SyncBatchNorm} == live


def test_an_error_inside_puts_them_back(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(TrainingError), synchronised(model, GROUPS, phase_of(tmp_path), TWO):
        raise TrainingError("the loss is not finite")
    assert set(kinds(model).values()) == {nn.BatchNorm2d}


def test_a_norm_with_its_activation_keeps_it(tmp_path: Path) -> None:
    spec = get("timm/efficientnet_b0")
    model = timm.create_model("efficientnet_b0", num_classes=3)
    plain, images = copy.deepcopy(model).train(), torch.randn(4, 3, 64, 64)
    with synchronised(model, assign(model, spec), phase_of(tmp_path), TWO):
        assert set(kinds(model).values()) == {SyncBatchNormAct}
        torch.manual_seed(0)
        ours = model(images)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, plain(images))
    assert same(state_of(model), state_of(plain))


def test_a_norm_that_two_places_share_stays_shared(tmp_path: Path) -> None:
    model = net()
    model.after = model.norm
    groups = [replace(GROUPS[0]), replace(GROUPS[1], parameters=("deep.weight",), buffers=()), GROUPS[2]]
    with synchronised(model, groups, phase_of(tmp_path), TWO):
        assert model.after is model.norm and type(model.norm) is nn.SyncBatchNorm
    assert model.after is model.norm and type(model.norm) is nn.BatchNorm2d


def test_a_training_with_them_is_the_same_and_leaves_plain_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, where both compute the same: phases, average, saved states and the best weights fit both."""
    recipe = Recipe(strategy="lp-ft", probe_epochs=1, epochs=2, lr=0.05, lr_decay=0.5, ema=0.6)
    plain = Toy(tmp_path / "plain", recipe).train()
    seen: list[set[type]] = []
    forward = Joined.forward

    def watched(self: Joined, *given: Any) -> Any:
        seen.append(set(kinds(self).values()))
        return forward(self, *given)

    monkeypatch.setattr(Joined, "forward", watched)
    monkeypatch.setattr(synchronising, "synchronises", lambda *given: True)
    toy = Toy(tmp_path / "shared", recipe).train()
    assert seen == [{nn.BatchNorm2d}] * 3 + [{nn.SyncBatchNorm}] * 6, "the probe's are frozen"
    assert set(kinds(toy.model).values()) == {nn.BatchNorm2d}
    assert same(state_of(toy.model), state_of(plain.model))


def test_a_range_test_trains_with_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[type]] = []
    find = prepare.find_rate

    def watched(loaded: Loaded, *given: Any) -> Any:
        seen.append(set(kinds(loaded.model).values()))
        return find(loaded, *given)

    monkeypatch.setattr(prepare, "find_rate", watched)
    monkeypatch.setattr(synchronising, "synchronises", lambda *given: True)
    recipe = Recipe(strategy="finetune", lr="auto", norm="live", image_size=16, limit=64, epochs=1, threads=1)
    ready = prepare.prepare("resnet_nano", "digits", recipe, ignore)
    assert seen == [{nn.SyncBatchNorm}]
    assert nn.SyncBatchNorm not in kinds(ready.loaded.model).values() and ready.range_test is not None


def test_the_plan_says_whose_statistics_they_are() -> None:
    model, weights = zoo.load("resnet_nano"), Weights(name="any", source="timm")
    recipe = Recipe(strategy="finetune", batch_size=16)

    def said(*, synchronised: bool = False) -> tuple[str, str]:
        accelerator = processes("cuda" if synchronised else "cpu", 4)
        loaded: Any = pieces(model, accelerator, range(4000), weights=weights)
        decision = policy.norm_mode(recipe, loaded)
        return decision.changes["norm"], decision.note

    assert said(synchronised=True) == ("live", "live batch-norm statistics are those of all 4 processes together")
    assert said()[0] == "fixed" and "under 8 images per process" in said()[1], "each would have 4"
    recipe = replace(recipe, norm="live")
    assert said() == (
        "live",
        "live batch-norm statistics are per process: runs with other process counts differ slightly",
    )
    assert said(synchronised=True)[1].endswith("of all 4 processes together")
    recipe = replace(recipe, norm="fixed")
    assert said() == ("fixed", "")
