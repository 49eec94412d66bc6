"""A frozen network computes less when its batch norms are folded into the convolutions before them."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.models.freezing import evaluating
from zoo.training.frozen_cache.parts import Cut

LARGEST = 1e-3  # error of a folded prefix that cannot matter
FACTOR = 1.5  # or how many times the error of the run's precision it may be


def folded_parts(model: nn.Module, cut: Cut) -> dict[nn.Module, nn.Module]:
    """Stand-ins for the convolutions and norms before a cut, for `Cut.prefix`; the model keeps its own."""
    parts: dict[nn.Module, nn.Module] = {}
    with evaluating(model), torch.no_grad():
        for path, norm_path in cut.folds:
            convolution, norm = model.get_submodule(path), cast(Any, model.get_submodule(norm_path))
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), norm)
            parts[convolution] = fused.to(memory_format=torch.channels_last)
            rest = [norm.drop, norm.act] if isinstance(norm, BatchNormAct2d) else []
            parts[norm] = nn.Sequential(*rest).eval() if rest else nn.Identity()
    return parts


def faithful(folded: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether a folded prefix may stand in for the plain one, by what they say of some images.

    Args:
        folded: (B, …), activations of the folded prefix, in the run's precision.
        plain: The same without folding.
        exact: The same without folding, in float32.

    Returns:
        True if the error of the folded one, relative to the length of an image's activations, is on average no more
        than `LARGEST`, or at most `FACTOR` times the error that the run's precision brings anyway.
    """
    return bool(folded.isfinite().all()) and _error(folded, exact) <= max(LARGEST, FACTOR * _error(plain, exact))


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    difference = (found.float() - exact.float()).flatten(1).norm(dim=1)
    return float((difference / exact.float().flatten(1).norm(dim=1).clamp_min(1e-12)).mean())
