"""AlexNet and GoogLeNet give torchvision's own numbers, and behave as timm models."""

from __future__ import annotations

import adaptzoo_legacy.models  # noqa: F401  # registers the architectures
import pytest
import timm
import torch
import torchvision
from torch import nn


def randomise(model: nn.Module) -> nn.Module:
    """Values that keep activations alive through every layer, statistics included."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def reference_googlenet() -> nn.Module:
    model = torchvision.models.googlenet(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    return randomise(model)


@pytest.mark.parametrize("size", [224, 64])
def test_alexnet_equals_torchvision(size: int) -> None:
    theirs = randomise(torchvision.models.alexnet(weights=None))
    ours = timm.create_model("alexnet").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
        assert ours(images).abs().max() > 0.1


@pytest.mark.parametrize("size", [224, 64])
def test_googlenet_equals_torchvision_with_its_input_transform(size: int) -> None:
    theirs = reference_googlenet()
    config = timm.get_pretrained_cfg("googlenet.tv_in1k")
    weights = dict(theirs.state_dict())
    assert any(name.startswith("aux1.") for name in weights)
    ours = timm.create_model(
        "googlenet",
        pretrained=True,
        pretrained_cfg={"state_dict": weights, "num_classes": 1000, "first_conv": "conv1.conv", "classifier": "fc"},
    ).eval()
    pixels = torch.rand(2, 3, size, size)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        expected = theirs(normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        actual = ours(normalised(config.mean, config.std))
        untransformed = ours(normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(untransformed, expected, rtol=1e-2, atol=1e-2), "the transform must make a difference"


def test_googlenet_refuses_a_file_that_lacks_more_than_the_auxiliary_heads() -> None:
    weights = timm.create_model("googlenet").state_dict()
    weights.pop("inception4a.branch1.conv.weight")
    config = {"state_dict": weights, "num_classes": 1000, "first_conv": "conv1.conv", "classifier": "fc"}
    with pytest.raises(RuntimeError, match=r"inception4a\.branch1\.conv\.weight"):
        timm.create_model("googlenet", pretrained=True, pretrained_cfg=config)


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_one_tensor_in_training_too(name: str) -> None:
    model = timm.create_model(name, num_classes=5).train()
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_dropout_is_off_by_default_and_honoured_when_asked(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    plain, dropping = timm.create_model(name, drop_rate=0.0), timm.create_model(name, drop_rate=0.9)
    features = plain.forward_features(images).detach()
    for model, same in ((plain, True), (dropping, False)):
        model.train()
        once, again = (model.forward_head(features, pre_logits=True) for _ in range(2))
        assert torch.equal(once, again) is same


@pytest.mark.parametrize(("name", "width"), [("alexnet", 4096), ("googlenet", 1024)])
def test_the_parts_of_the_timm_interface_agree(name: str, width: int) -> None:
    model = timm.create_model(name, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = model.forward_features(images)
        assert features.shape[1] == model.num_features
        hidden = model.forward_head(features, pre_logits=True)
        assert hidden.shape == (2, width) == (2, model.head_hidden_size)
        assert torch.equal(model.get_classifier()(hidden), model(images))
        model.reset_classifier(0)
        assert torch.equal(model(images), hidden)
        model.reset_classifier(9)
        assert model(images).shape == (2, 9)
        assert model.num_classes == 9


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_gradient_checkpointing_changes_nothing_but_memory(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).train()
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model.forward_features(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) >= 10
    assert all(bool(gradient.any()) for gradient in gradients[0])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_declared_weights_are_torchvisions(name: str) -> None:
    config = timm.get_pretrained_cfg(f"{name}.tv_in1k")
    theirs = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    assert config.url == theirs.url
    assert config.license == "bsd-3-clause"
    assert config.num_classes == len(theirs.meta["categories"])
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == theirs.meta["num_params"]


def test_alexnet_cannot_pool_in_another_way() -> None:
    with pytest.raises(ValueError, match="global_pool must be 'avg', not 'max'"):
        timm.create_model("alexnet", global_pool="max")
