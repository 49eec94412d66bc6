"""Every in-tree backbone keeps the contracts; the manifests tell the truth about timm."""

from __future__ import annotations

import pytest
import timm

from zoo import testing
from zoo.models import lookup

IN_TREE = ("adaptzoo-legacy", "adaptzoo-resnet", "adaptzoo-vgg")
STATIC = [spec.full_name for spec in lookup.backbones() if spec.distribution in IN_TREE]
# One per block type and family: basic, bottleneck, deep stem, tiered stem, groups of one, and every special case.
REPRESENTATIVE = (
    "resnet/resnet_nano",
    "resnet/resnet18",
    "resnet/resnet50",
    "resnet/resnet26d",
    "resnet/resnet10t",
    "resnet/resnext50_32x4d",
    "vgg/vgg11_bn",
    "legacy/alexnet",
    "legacy/googlenet",
)
DYNAMIC = (
    "timm/convnext_atto",
    "timm/test_efficientnet",
    "timm/mobilenetv2_100",
    "timm/densenet121",
    "timm/regnety_002",
    "timm/test_vit",
    "timm/swin_tiny_patch4_window7_224",
    "timm/mixer_s32_224",
    "timm/inception_v3",
    "timm/repvgg_a0",
    "timm/vgg11_bn",  # timm parts convolutions from their norms here
    "timm/poolformer_s12",  # has no group matcher
)
LARGE = {"timm/densenet121", "timm/inception_v3", "timm/swin_tiny_patch4_window7_224"}
STRUCTURE_ONLY = {"timm/vgg11_bn", "timm/poolformer_s12"}  # there for their groups, not for their numbers


def test_all_the_promised_backbones_are_there() -> None:
    names = {name.partition("/")[2] for name in STATIC}
    assert {"resnet_nano", "resnet10t", "resnet152", "resnext50_32x4d", "wide_resnet50_2"} <= names
    assert {f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")} <= names
    assert {"alexnet", "googlenet"} <= names
    assert len(STATIC) == len(set(STATIC)) >= 30


@pytest.mark.parametrize("name", STATIC)
def test_partition_order_and_counts(name: str) -> None:
    testing.assert_conforms(name, numerics=False)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_numerics(name: str) -> None:
    testing.assert_conforms(name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.heavy if name in LARGE else ()) for name in DYNAMIC]
)
def test_timm_architectures_of_different_kinds(name: str) -> None:
    testing.assert_conforms(name, numerics=name not in STRUCTURE_ONLY)


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in STATIC if name not in REPRESENTATIVE])
def test_numerics_of_the_rest(name: str) -> None:
    testing.assert_conforms(name)


@pytest.mark.parametrize("name", STATIC)
def test_weights_are_what_timm_declares(name: str) -> None:
    spec = lookup.get(name)
    lookup.register_architectures(spec)
    tags = [weights.name for weights in spec.weights if weights.source == "timm"]
    for weights in spec.weights:
        assert weights.license, f"{name}.{weights.name} names no licence"
        if weights.source == "timm":
            declared = timm.models.get_arch_pretrained_cfgs(spec.arch)[f"{spec.arch}.{weights.name}"]
            assert declared.has_weights
            assert weights.license == declared.license
            assert weights.num_classes in (None, declared.num_classes)
    default = timm.get_pretrained_cfg(spec.arch)
    if tags:
        assert tags[0] == default.tag
        assert spec.input == default.input_size[-1]


@pytest.mark.parametrize("name", STATIC)
def test_no_default_is_for_non_commercial_use_only(name: str) -> None:
    licences = [weights.license or "" for weights in lookup.get(name).weights]
    assert not any("-nc" in licence for licence in licences[:1])
    assert licences == sorted(licences, key=lambda licence: "-nc" in licence), "the restricted ones come last"
