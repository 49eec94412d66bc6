from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from zoo.errors import PluginError
from zoo.models import derived_groups, layer_groups, lookup, saved
from zoo.models.freezing import Freezer
from zoo.models.layer_groups import Group
from zoo.models.spec import BackboneSpec, LayerGroup


def spec(*declared: tuple[str, str], arch: str = "test_resnet") -> BackboneSpec:
    return BackboneSpec(
        name="mine",
        plugin="sample",
        arch=arch,
        params=None,
        input=None,
        weights=(),
        groups=tuple(LayerGroup(name, match) for name, match in declared),
        module=None,
        distribution="sample-plugin",
        version="1.0",
    )


STEM, BODY, HEAD = ("stem", r"(?:conv1|bn1)\."), ("body", r"layer\d\."), ("head", r"fc\.")


def meta(arch: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(arch, **options)


def test_declared_groups_keep_their_order_and_take_buffers_along() -> None:
    model = meta("test_resnet", num_classes=4)
    found = layer_groups.assign(model, spec(STEM, BODY, HEAD))
    assert [group.name for group in found] == ["stem", "body", "head"]
    stem = found[0]
    assert {"conv1.6.weight", "bn1.weight"} <= set(stem.parameters)
    assert {"bn1.running_mean", "bn1.num_batches_tracked"} <= set(stem.buffers)
    assert found[2] == Group("head", ("fc.weight", "fc.bias"), ())
    counts = [layer_groups.parameter_count(model, group) for group in found]
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())
    assert counts[2] == sum(parameter.numel() for parameter in model.fc.parameters())


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ((STEM, HEAD), "in no group: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias, layer1.0.conv2"),
        ((STEM, BODY, ("again", r"layer1\.0\.conv1"), HEAD), "in two groups: layer1.0.conv1.weight (body and again)"),
        ((STEM, BODY, ("neck", "typo"), HEAD), "groups that match nothing: neck"),
        (((*STEM[:1], r"c\.|conv1"), BODY, HEAD), "in no group: bn1.weight, bn1.bias, bn1.running_mean"),
    ],
)
def test_groups_that_do_not_fit_are_an_error_with_the_names(declared: tuple[tuple[str, str], ...], why: str) -> None:
    with pytest.raises(PluginError) as raised:
        layer_groups.assign(meta("test_resnet"), spec(*declared))
    assert raised.value.what == "the layer groups of sample/mine do not fit the architecture test_resnet"
    assert why in raised.value.why
    assert "sample-plugin 1.0" in raised.value.fix


def test_long_lists_of_names_are_cut() -> None:
    with pytest.raises(PluginError, match=r"and \d+ more"):
        layer_groups.assign(meta("test_resnet"), spec(STEM, HEAD))


def test_a_model_without_classes_has_an_empty_head() -> None:
    found = layer_groups.assign(meta("test_resnet", num_classes=0), spec(STEM, BODY, HEAD))
    assert found[-1] == Group("head", (), ())


# --- derived groups ---


def derived(arch: str) -> dict[str, Group]:
    return {group.name: group for group in layer_groups.assign(meta(arch), lookup.get(f"timm/{arch}"))}


def test_vision_transformer() -> None:
    found = derived("vit_tiny_patch16_224")
    assert list(found) == ["stem", *(f"blocks.{index}" for index in range(12)), "head"]
    assert {"cls_token", "pos_embed"} <= set(found["stem"].parameters)
    assert set(found["head"].parameters) == {"head.weight", "head.bias"}


def test_what_the_matcher_leaves_out_is_a_neck_before_the_head() -> None:
    found = derived("convnext_atto")
    assert list(found) == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "neck", "head"]
    assert set(found["neck"].parameters) == {"head.norm.weight", "head.norm.bias"}
    assert set(found["head"].parameters) == {"head.fc.weight", "head.fc.bias"}


def test_head_is_always_the_classifier_whatever_an_author_calls_head() -> None:
    found = derived("selecsls42")
    assert list(found)[-1] == "head"
    assert set(found["head"].parameters) == {"fc.weight", "fc.bias"}
    assert any(name.startswith("head.") for group in found.values() for name in group.parameters)


def test_a_norm_stays_with_the_convolution_that_timms_vgg_matcher_parts_it_from() -> None:
    for group in derived("vgg11_bn").values():
        convolutions = {int(name.split(".")[1]) for name in group.parameters if name.startswith("features.")}
        for first in [index for index in convolutions if index - 1 not in convolutions]:
            assert first + 1 in convolutions, f"the norm of features.{first} is elsewhere"
            assert f"features.{first + 1}.running_mean" in group.buffers


def test_buffers_without_parameters_beside_them_follow_their_surroundings() -> None:
    found = derived("swin_tiny_patch4_window7_224")
    assert "layers.2.blocks.1.attn.relative_position_index" in found["layers.2"].buffers


class Odd(nn.Module):
    """No matcher, children registered against the call order, a shared module, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 2
        self.in_chans = 3
        self.pretrained_cfg = {"classifier": "last", "input_size": (3, 8, 8)}
        self.last = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.stages = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.entry = nn.Conv2d(3, 4, 1)
        self.again = self.stages[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.again(self.stages(self.entry(images * self.scale)))
        return self.last(maps.mean((2, 3)))


def test_without_a_matcher_children_count_in_call_order_and_sharers_join_the_earliest() -> None:
    model = Odd().train()
    found = {name: parameters for name, parameters, _ in derived_groups.derive(model)}
    assert list(found) == ["stem", "stages.0", "stages.1", "head"]
    assert set(found["stem"]) == {"scale", "entry.weight", "entry.bias"}
    assert set(found["stages.0"]) == {"stages.0.weight", "stages.0.bias"}
    assert model.training


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm2d(2), True),
        (nn.SyncBatchNorm(2), True),
        (nn.LayerNorm(2), True),
        (nn.GroupNorm(1, 2), True),
        (nn.InstanceNorm2d(2), True),
        (nn.RMSNorm(2), True),
        (timm.layers.LayerNorm2d(2), True),
        (timm.layers.BatchNormAct2d(2), True),
        (timm.layers.RmsNorm(2), True),
        (timm.layers.FilterResponseNormTlu2d(2), True),
        (timm.layers.ConvNormAct(2, 2), False),
        (nn.Conv2d(2, 2, 1), False),
        (nn.Dropout(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_counts_as_a_norm(module: nn.Module, expected: bool) -> None:
    assert layer_groups.is_norm(module) is expected


# --- freezing ---


def nano() -> tuple[nn.Module, tuple[Group, ...]]:
    backbone = lookup.get("resnet/resnet_nano")
    model = saved.build(backbone, weights=None, num_classes=3)
    return model, layer_groups.assign(model, backbone)


def test_frozen_groups_get_no_gradient_and_keep_their_statistics() -> None:
    model, found = nano()
    freezer = Freezer(model, found, {"stem", "layer1"}, fixed_norm={"layer2"})
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    freezer.train()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(before[name], buffer)}
    for group in found:
        live = group.name in {"layer3", "layer4"}
        assert bool(moved & set(group.buffers)) is live, group.name
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    frozen = {name for group in found[:2] for name in group.parameters}
    assert with_gradient == {name for name, _ in model.named_parameters()} - frozen
    assert model.training
    assert model.layer2.training, "only the norms of a fixed_norm group are in eval mode"
    assert not model.layer2[0].bn1.training
    assert not model.layer1.training


def test_training_mode_again_keeps_the_frozen_still() -> None:
    model, found = nano()
    freezer = Freezer(model, found, {"stem"})
    for _ in range(2):
        model.eval()
        freezer.train()
        assert not model.bn1.training
        assert model.layer1.training


def test_a_new_freezer_releases_what_the_last_one_held() -> None:
    model, found = nano()
    Freezer(model, found, {group.name for group in found[:-1]})
    Freezer(model, found, ()).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_dropout_between_frozen_layers_is_still_too() -> None:
    alexnet = lookup.get("alexnet")
    lookup.register_architectures(alexnet)
    with torch.device("meta"):
        model = timm.create_model("alexnet", num_classes=3, drop_rate=0.5)
    found = layer_groups.assign(model, alexnet)
    Freezer(model, found, {group.name for group in found} - {"head"}).train()
    assert [model.classifier[index].training for index in (0, 3)] == [False, False]
    assert model.classifier[6].training
    Freezer(model, found, {group.name for group in found} - {"head", "fc"}).train()
    assert [model.classifier[index].training for index in (0, 3)] == [True, True]


def test_an_unknown_group_name() -> None:
    model, found = nano()
    with pytest.raises(ValueError, match="no layer group named layer9; there are: head, layer1"):
        Freezer(model, found, {"layer9"})


def test_what_was_added_to_a_module_goes_with_its_group() -> None:
    model, found = nano()
    model.layer3[0].conv1.register_parameter("lora_A", nn.Parameter(torch.zeros(2, 2)))
    model.register_parameter("prompt", nn.Parameter(torch.zeros(2)))  # around it is everything: it is the head's
    assert layer_groups.added(model, found) == {"prompt": "head", "layer3.0.conv1.lora_A": "layer3"}
    declared = {group.name: set(group.parameters) for group in found}

    def trained() -> set[str]:
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    Freezer(model, found, {"layer3"})
    assert trained() == {name for group in declared.values() for name in group} - declared["layer3"] | {"prompt"}
    Freezer(model, found, {"layer1"})
    assert "layer3.0.conv1.lora_A" in trained()
    Freezer(model, found, declared.keys() - {"layer3", "head"}, adapted={"layer3"}).train()
    assert trained() == {"prompt", "layer3.0.conv1.lora_A", *declared["head"]}
    assert model.layer3[0].conv1.training and not model.layer3[0].bn1.training, "its statistics are not adapted"
