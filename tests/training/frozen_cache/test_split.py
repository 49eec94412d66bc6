from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tests.plugins.survey_timm import SPLIT
from zoo.models import layer_groups, lookup, preprocessing, saved
from zoo.models.layer_groups import Group
from zoo.training.frozen_cache.fold_norms import folded_parts
from zoo.training.frozen_cache.split import Splitter

# One of each plugin. The side of the images is 0 where the architecture fixes it.
QUICK = (
    *[("resnet/resnet_nano", 64), ("vgg/vgg11_bn", 32), ("legacy/googlenet", 64)],
    *[("timm/test_vit", 0), ("timm/test_efficientnet", 64)],
)
HEAVY = (
    *[("resnet/resnet18", 64), ("resnet/resnet26d", 64), ("resnet/resnext50_32x4d", 64), ("vgg/vgg11", 64)],
    *[("timm/vgg11_bn", 32), ("legacy/alexnet", 96), ("timm/convnext_atto", 64), ("timm/mobilenetv2_100", 64)],
    *[("timm/densenet121", 64), ("timm/regnety_002", 64), ("timm/mixer_s32_224", 0), ("timm/inception_v3", 0)],
    *[("timm/repvgg_a0", 64), ("timm/swin_tiny_patch4_window7_224", 0), ("timm/poolformer_s12", 64)],
)
# Spares VGG half a gigabyte of fully connected layers.
ARGUMENTS = {"vgg/vgg11_bn": {"mlp_ratio": 1 / 64}, "timm/vgg11_bn": {"mlp_ratio": 1 / 64}}
CASES = [*QUICK, *[pytest.param(*case, marks=pytest.mark.heavy) for case in HEAVY]]


def test_what_the_page_says_can_be_split_is_tried() -> None:
    assert set(SPLIT) == {name.partition("/")[2] for name, _ in (*QUICK, *HEAVY) if name.startswith("timm/")}


@pytest.mark.parametrize(("name", "side"), CASES)
def test_the_two_parts_are_the_network_bit_for_bit_at_every_group(name: str, side: int) -> None:
    spec = lookup.get(name)
    torch.manual_seed(0)
    arguments = ARGUMENTS.get(name)
    model = timm.create_model(spec.arch, num_classes=5, **arguments) if arguments else None
    model = model or saved.build(spec, weights=None, num_classes=5)
    torch.nn.init.normal_(model.get_classifier().weight, std=0.02)  # some start at zero, and all outputs would agree
    model.eval()
    size = (3, side, side) if side else preprocessing.data_config(model).input_size
    found = layer_groups.assign(model, spec)
    splitter = Splitter(model, found, size)
    images = torch.randn(5, *size).to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(images)
        for number in range(1, len(found)):
            cut = splitter.split([group.name for group in found[:number]])
            assert cut is not None, f"{name} cannot be split before {found[number].name}"
            assert cut.group == found[number].name and not cut.recomputed
            suffix = cut.suffix(model).eval()
            assert torch.equal(suffix(cut.prefix(model)(images)), expected), found[number].name
            folded = suffix(cut.prefix(model, folded_parts(model, cut))(images))
            error = (folded - expected).abs().max() / expected.abs().max()
            assert error < 1e-3, f"folded before {found[number].name}: {error}"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Block(nn.Module):
    """A shortcut leads around two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.mix = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.mix(self.two(hidden))


class Around(nn.Module):
    """Dropout stands between pooling and the head."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.one, self.block, self.pool = nn.Conv2d(3, 4, 3, padding=1), Block(), nn.AdaptiveAvgPool2d(1)
        self.fc, self.drop = nn.Linear(4, 3), drop

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.pool(self.block(self.one(images))).flatten(1)
        return self.fc(nn.functional.dropout(hidden, self.drop, self.training))


def parted(*names: str) -> tuple[Group, ...]:
    return tuple(Group(name, (f"{name}.weight", f"{name}.bias"), ()) for name in names)


AROUND = parted("one", "block.two", "block.mix", "fc")


def test_a_shortcut_around_the_boundary_moves_it_to_where_it_holds() -> None:
    cut = Splitter(Around(), AROUND, (3, 8, 8)).split(["one", "block.two"])
    assert cut is not None
    assert (cut.entry, cut.group, cut.recomputed) == ("block", "block.two", ("block.two",))


@pytest.mark.parametrize(("drop", "entry"), [(0.0, "fc"), (0.5, "pool")])
def test_dropout_before_the_head_is_not_lost(drop: float, entry: str) -> None:
    model = Around(drop)
    cut = Splitter(model, AROUND, (3, 8, 8)).split(["one", "block.two", "block.mix"])
    assert cut is not None and cut.entry == entry


def test_a_parameter_used_before_the_boundary_is_noticed() -> None:
    class Early(Around):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images * self.fc.bias.sum())

    assert Splitter(Early(), AROUND, (3, 8, 8)).split(["one", "block.two", "block.mix"]) is None


def test_the_suffix_follows_the_networks_mode_and_shares_its_parameters() -> None:
    model = Around(0.5)
    cut = Splitter(model, AROUND, (3, 8, 8)).split(["one", "block.two", "block.mix"])
    assert cut is not None
    suffix, kept = cut.suffix(model), cut.prefix(model)(torch.randn(4, 3, 8, 8))
    model.train()
    assert not torch.equal(suffix(kept), suffix(kept))
    suffix.eval()
    assert not model.training and torch.equal(suffix(kept), suffix(kept))
    suffix(kept).sum().backward()
    assert model.fc.weight.grad is not None and model.one.weight.grad is None
