"""The conformance kit must fail what is wrong, not only pass what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from zoo import testing
from zoo.models import lookup
from zoo.models.spec import BackboneSpec, LayerGroup

NANO = lookup.get("resnet/resnet_nano")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Failed checks of resnet_nano with some of its manifest changed."""

    def check(numerics: bool = False, **changes: Any) -> dict[str, str]:
        spec: BackboneSpec = replace(NANO, **changes)
        monkeypatch.setattr(lookup, "get", lambda _name: spec)
        return {item.name: item.detail for item in testing.check_backbone("any", numerics) if not item.ok}

    return check


def swapped(first: int, second: int) -> tuple[LayerGroup, ...]:
    rows = list(NANO.groups)
    rows[first], rows[second] = rows[second], rows[first]
    return tuple(rows)


def test_a_good_backbone_passes_every_check() -> None:
    checks = testing.check_backbone("resnet_nano")
    assert [check.name for check in checks] == [
        "builds",
        "partition",
        "buffers follow their module",
        "head",
        "forward order",
        "norm with its convolution",
        "parameter count",
        "save and reload",
        "input channels",
        "gradients reach every group",
        "frozen groups stay",
        "class counts",
    ]
    assert all(check.ok and not check.detail for check in checks)


def test_an_unknown_backbone_is_a_failed_check() -> None:
    (check,) = testing.check_backbone("resnet/resnet_giga")
    assert (check.name, check.ok) == ("found", False)
    assert "resnet_giga" in check.detail


def test_a_false_parameter_count(broken: Callable[..., dict[str, str]]) -> None:
    assert broken(params=491_000) == {"parameter count": "the manifest says 491,000, the model has 392,088"}


def test_groups_out_of_forward_order(broken: Callable[..., dict[str, str]]) -> None:
    found = broken(groups=swapped(1, 2))
    assert found == {
        "forward order": "declared stem, layer2, layer1, layer3, layer4, head; "
        "called stem, layer1, layer2, layer3, layer4, head"
    }


def test_a_norm_parted_from_its_convolution(broken: Callable[..., dict[str, str]]) -> None:
    parted = (LayerGroup("conv", r"conv1\."), LayerGroup("norm", r"bn1\."), *NANO.groups[1:])
    found = broken(groups=parted)
    assert found == {"norm with its convolution": "bn1 is in norm, conv1.6 in conv"}


def test_a_buffer_parted_from_its_module(broken: Callable[..., dict[str, str]]) -> None:
    parted = (
        LayerGroup("stem", r"conv1\.|bn1\.(?:weight|bias)"),
        LayerGroup("layer1", r"layer1\.|bn1\.(?:running|num)"),
        *NANO.groups[2:],
    )
    assert broken(groups=parted) == {"buffers follow their module": "parted in bn1"}


def test_a_head_that_is_more_than_the_classifier(broken: Callable[..., dict[str, str]]) -> None:
    found = broken(groups=(*NANO.groups[:4], LayerGroup("head", r"fc\.|layer4\.")))
    assert list(found) == ["head"]
    assert "the last group is head with fc.bias, fc.weight, layer4" in found["head"]


def test_groups_that_do_not_partition(broken: Callable[..., dict[str, str]]) -> None:
    found = broken(groups=NANO.groups[1:])
    assert "in no group: conv1.0.weight" in found["builds"]


class Drifting(nn.BatchNorm2d):
    """A norm that ignores its mode, as a careless plugin's might."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.running_mean.add_(1)
        return super().forward(maps)


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> dict[str, str]:
    build = testing.saved.build

    def wrong(*args: Any, **kwargs: Any) -> nn.Module:
        model = build(*args, **kwargs)
        change(model)
        return model

    monkeypatch.setattr(testing.saved, "build", wrong)
    return {check.name: check.detail for check in testing.check_backbone("resnet_nano") if not check.ok}


def test_statistics_that_move_while_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = changed(monkeypatch, lambda model: setattr(model, "bn1", Drifting(model.bn1.num_features)))
    assert found["frozen groups stay"] == "stem is frozen, but these changed: bn1.running_mean"


def test_a_model_that_cannot_change_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    found = changed(monkeypatch, lambda model: setattr(model, "reset_classifier", lambda _count: None))
    assert found["class counts"] == "asked for 11 classes, got logits of shape (1, 7)"


def test_a_head_swapped_by_hand_does_not_survive_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(model: Any) -> None:
        model.layer4[0].act2 = nn.PReLU(model.layer4[0].conv2.out_channels)

    found = changed(monkeypatch, swap)
    assert "is damaged" in found["save and reload"]


def test_a_group_that_no_gradient_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    def detach(model: Any) -> None:
        model.layer2.register_forward_hook(lambda _module, _inputs, maps: maps.detach())

    found = changed(monkeypatch, detach)
    assert found["gradients reach every group"] == "no gradient reaches stem"


def test_assert_conforms_lists_every_failure(broken: Callable[..., dict[str, str]]) -> None:
    broken(params=1, groups=swapped(1, 2))
    with pytest.raises(testing.ConformanceError, match=r"any fails 2 check\(s\)") as raised:
        testing.assert_conforms("any", numerics=False)
    assert "parameter count: the manifest says 1, the model has 392,088" in str(raised.value)
    assert isinstance(raised.value, AssertionError)
