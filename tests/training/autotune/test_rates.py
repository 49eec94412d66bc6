"""The rate from random weights, by how much of a network is normalised."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import zoo
from zoo.models.layer_groups import Group
from zoo.recipes.strategies import PRESETS
from zoo.training.autotune.learning_rate import from_random
from zoo.training.loaded import Decision

USUAL = PRESETS["scratch"].lr


def network(**parts: nn.Module) -> Any:
    """A network of such parts and a head, each a layer group."""
    model = nn.Sequential(OrderedDict(**parts, head=nn.Linear(500, 500)))
    layers = [
        Group(
            name,
            tuple(f"{name}.{inner}" for inner, _ in part.named_parameters()),
            tuple(f"{name}.{inner}" for inner, _ in part.named_buffers()),
        )
        for name, part in model.named_children()
    ]
    return SimpleNamespace(model=model, groups=layers)


def normed(width: int, norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), norm)


def plain(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.BatchNorm2d(8, affine=False)], ids=["batch", "group", "bare"]
)
def test_a_normalised_network_has_the_usual_rate(norm: nn.Module) -> None:
    assert from_random(zoo.Recipe(strategy="scratch"), network(body=normed(8, norm))) == Decision()


def test_the_weights_decide_and_the_head_does_not_count() -> None:
    scratch = zoo.Recipe(strategy="scratch")
    few = network(stem=plain(4), body=normed(8, nn.BatchNorm2d(8)))
    most = network(stem=normed(8, nn.BatchNorm2d(8)), body=plain(9))
    assert from_random(scratch, few) == Decision()
    made = from_random(scratch, most)
    rate, note = made.changes["lr"], made.note
    assert rate == pytest.approx(USUAL / 10)
    assert f"{rate:g}" in note and "no normalisation" in note


@pytest.mark.parametrize(
    "choices",
    [{"strategy": "finetune"}, {"strategy": "scratch", "lr": 0.002}, {"strategy": "scratch", "lr": "auto"}],
    ids=["pretrained", "chosen", "range test"],
)
def test_other_strategies_and_a_chosen_rate_are_left_alone(choices: dict[str, Any]) -> None:
    assert from_random(zoo.Recipe(**choices), network(body=plain(8))) == Decision()


def test_the_plan_of_alexnet_has_it_in_every_group_and_says_so() -> None:
    recipe = zoo.Recipe(strategy="scratch", epochs=1, image_size=64, limit=20)
    gentle = zoo.plan("alexnet", "digits", recipe)
    usual = zoo.plan("resnet_nano", "digits", recipe)
    assert {f"{rate:g}" for rate in gentle.phases[0].rates.values()} == {f"{USUAL / 10:g}"}
    assert {f"{rate:g}" for rate in usual.phases[0].rates.values()} == {f"{USUAL:g}"}
    assert "no normalisation" in " ".join(gentle.notes)
    assert "no normalisation" not in " ".join(usual.notes)
