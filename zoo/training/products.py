"""Convolutions whose kernel covers the input, as matrix products: much quicker on a CPU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Product(nn.Conv2d):
    """A convolution, with the same weights, that is a matrix product if its kernel covers the input."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, K, 1, 1) if H x W is the kernel's size, else as any convolution."""
        if input.ndim != 4 or input.shape[-2:] != self.kernel_size:
            return super().forward(input)
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None]


def use_products(model: nn.Module) -> None:
    """Make the model's plain convolutions use matrix products when they can: in place, parameters untouched.

    Fully connected layers of timm's VGG are such convolutions, the first one of 7 x 7 over 7 x 7.
    """
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1  # a subclass may transform its weight first
        if plain and module.dilation == (1, 1) and module.padding in ((0, 0), "valid"):
            module.__class__ = Product
