"""A convolution whose kernel covers its whole input is one product of matrices, which a CPU computes much quicker."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Product(nn.Conv2d):
    """A convolution that multiplies matrices where its kernel covers the input. Its weights are as they were."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute (B, C, H, W) -> (B, K, 1, 1) where H x W is the kernel's size, and elsewhere as any convolution."""
        if input.ndim != 4 or input.shape[-2:] != self.kernel_size:
            return super().forward(input)
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None]


def use_products(model: nn.Module) -> None:
    """Let the model's plain convolutions multiply matrices where they can: in place, parameters untouched.

    Fully connected layers of timm's VGG are such convolutions, the first one of 7 x 7 over 7 x 7.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _unpadded(module):  # another kind may do something to its weight first
            module.__class__ = Product


def _unpadded(convolution: nn.Conv2d) -> bool:
    """Whether it sees nothing but its input, every channel of it, pixel beside pixel."""
    plain = convolution.groups == 1 and convolution.dilation == (1, 1)
    return plain and convolution.padding in ((0, 0), "valid")
