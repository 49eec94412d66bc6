"""What a frozen part that is folded, or computed in bfloat16, changes of the classes that are named."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from zoo.models import layer_groups, lookup, saved
from zoo.training.frozen_cache.fold_norms import folded_parts
from zoo.training.frozen_cache.split import Splitter

SIDE = 64


@pytest.fixture(scope="module")
def digits() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """The small network, its head fitted on four of five digits; digits, as a phase sees them, and what it names."""
    torch.manual_seed(0)
    spec = lookup.get("resnet_nano")
    model = saved.build(spec, weights=saved.resolve_weights(spec, "default"), num_classes=10)
    model.eval().to(memory_format=torch.channels_last)
    bunch = load_digits()
    labels, raw = torch.from_numpy(bunch.target)[::3], torch.from_numpy(bunch.images[::3]).float()[:, None]
    images = functional.interpolate(raw, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1) / 4 - 2  # from 0 to 16
    images = images.contiguous(memory_format=torch.channels_last)
    fits = torch.arange(len(images)) % 5 != 0
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        fitted = LogisticRegression(C=10, max_iter=1000).fit(features[fits].numpy(), labels[fits].numpy())
        head = model.get_classifier()
        head.weight.copy_(torch.from_numpy(fitted.coef_))
        head.bias.copy_(torch.from_numpy(fitted.intercept_))
        named = model(images).argmax(1)
    assert (named == labels)[~fits].float().mean() > 0.8
    return model, images, named


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("first", ["layer3", "head"])
def test_the_shortcuts_of_a_frozen_part_change_next_to_no_class(digits, first: str, half: bool) -> None:
    model, images, named = digits
    found = layer_groups.assign(model, lookup.get("resnet_nano"))
    names = [group.name for group in found]
    cut = Splitter(model, found, (3, SIDE, SIDE)).split(names[: names.index(first)])
    assert cut is not None and cut.folds
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            activations = cut.prefix(model, folded_parts(model, cut))(images)
        assert activations.dtype == (torch.bfloat16 if half else torch.float32)
        same = cut.suffix(model)(activations.float()).argmax(1) == named
    assert same.float().mean() >= (0.995 if half else 1.0)
