"""Folding of frozen batch norms into the convolutions before them, which saves their computation."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.models.freezing import evaluating
from zoo.training.frozen_cache.parts import Cut

LARGEST = 1e-3  # relative error of a folded prefix that does not matter
FACTOR = 1.5  # or how many times the error of the run's precision it may be


def folded_parts(model: nn.Module, cut: Cut) -> dict[nn.Module, nn.Module]:
    """Replacements for the convolutions and norms before a cut, for `Cut.prefix`; the model is unchanged."""
    parts: dict[nn.Module, nn.Module] = {}
    with evaluating(model), torch.no_grad():
        for path, norm_path in cut.folds:
            convolution, norm = model.get_submodule(path), cast(Any, model.get_submodule(norm_path))
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), norm)
            parts[convolution] = fused.to(memory_format=torch.channels_last)
            parts[norm] = nn.Identity()
            if isinstance(norm, BatchNormAct2d):
                parts[norm] = nn.Sequential(norm.drop, norm.act).eval()
    return parts


def faithful(folded: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether the (B, ...) features of a folded prefix are close enough to the plain one's.

    `plain` and `exact` are without folding, in the run's precision and in float32. The mean error relative to the
    length of an image's features may be `LARGEST`, or `FACTOR` times the error of the run's precision.
    """
    return bool(folded.isfinite().all()) and _error(folded, exact) <= max(LARGEST, FACTOR * _error(plain, exact))


def _error(features: torch.Tensor, exact: torch.Tensor) -> float:
    difference = (features.float() - exact.float()).flatten(1).norm(dim=1)
    return float((difference / exact.float().flatten(1).norm(dim=1).clamp_min(1e-12)).mean())
