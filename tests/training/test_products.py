"""Convolutions that compute as products of matrices."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import nn

from zoo.training.frozen_cache.trace import foldable, observe
from zoo.training.products import Product, use_products


def both(convolution: nn.Conv2d, images: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Output and gradients, of the convolution as it is and of a copy that may multiply matrices."""
    found = []
    other = copy.deepcopy(convolution)
    use_products(other)
    for each in (convolution, other):
        given = images.clone().requires_grad_()
        output = each(given)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        assert given.grad is not None
        found.append((output.detach(), given.grad, *(parameter.grad for parameter in each.parameters())))
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3, (2, 5)])
def test_a_product_is_the_convolution(kernel, layout):
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 4, kernel, stride=2)
    images = torch.randn(3, 6, *convolution.kernel_size).to(memory_format=layout)
    plain, product = both(convolution, images)
    assert product[0].shape == (3, 4, 1, 1)
    for one, other in zip(plain, product, strict=True):
        torch.testing.assert_close(other, one)


def test_a_product_takes_what_a_convolution_does():
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 4, 3, padding="valid")
    network = nn.Sequential(convolution, nn.ReLU(inplace=True))  # as in VGG
    images = torch.randn(2, 6, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        plain, alone = network(images), convolution(images[0])
        use_products(network)
        found = network(images)
        assert type(convolution) is Product and torch.equal(convolution(images[0]), alone)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, rtol=0.02, atol=0.02)
    found.sum().backward()


def test_what_is_folded_with_the_norm_after_it_stays_so():
    model = timm.create_model("test_resnet", num_classes=2).eval()
    images = torch.randn(2, 3, 32, 32)
    pairs = foldable(model, observe(model, images))
    use_products(model)
    products = {path for path, module in model.named_modules() if type(module) is Product}
    assert products & {path for path, _ in pairs}
    assert foldable(model, observe(model, images)) == pairs


def test_where_the_kernel_does_not_cover_its_input_it_is_a_convolution():
    torch.manual_seed(0)
    plain, product = both(nn.Conv2d(6, 4, 3, bias=False), torch.randn(2, 6, 5, 3))
    assert product[0].shape == (2, 4, 3, 1)
    assert all(torch.equal(one, other) for one, other in zip(plain, product, strict=True))


@pytest.mark.parametrize("kind", [{"padding": 1}, {"groups": 2}, {"dilation": 2}, {"padding": "same"}])
def test_what_sees_more_or_less_than_its_input_stays(kind):
    convolution = nn.Conv2d(6, 4, 3, **kind)
    use_products(convolution)
    assert type(convolution) is nn.Conv2d


def test_a_convolution_of_another_kind_stays():
    convolution = StdConv2d(6, 4, 3)  # standardises its weights
    images = torch.randn(2, 6, 3, 3)
    before = convolution(images)
    use_products(convolution)
    assert torch.equal(convolution(images), before)
