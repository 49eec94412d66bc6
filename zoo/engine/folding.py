"""A frozen network computes less when its batch norms are folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.engine.halves import Cut, evaluating

AGREEMENT = 0.995  # of the images, for folding to be taken for the same


def folded_parts(model: nn.Module, cut: Cut) -> dict[nn.Module, nn.Module]:
    """Stand-ins for the convolutions and norms before a cut, for `Cut.prefix`; the model keeps its own."""
    parts: dict[nn.Module, nn.Module] = {}
    with evaluating(model), torch.no_grad():
        for path, norm_path in cut.folds:
            convolution, norm = model.get_submodule(path), cast(Any, model.get_submodule(norm_path))
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), norm)
            parts[convolution] = fused.requires_grad_(False).to(memory_format=torch.channels_last)
            rest = [norm.drop, norm.act] if isinstance(norm, BatchNormAct2d) else []
            parts[norm] = nn.Sequential(*rest).eval() if rest else nn.Identity()
    return parts


def agreement(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """Share of the images whose most probable class is the same by two lists of (B, classes) logits."""
    same = torch.cat([(one.argmax(1) == other.argmax(1)).float() for one, other in zip(left, right, strict=True)])
    return float(same.mean())


def agrees(folded: Sequence[torch.Tensor], plain: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> bool:
    """Whether a folded network may stand in for the plain one.

    Args:
        folded: Logits after the folded prefix, in the run's precision; a tensor (B, classes) per batch.
        plain: The same without folding.
        exact: The same without folding, in float32.

    Returns:
        True if it names the same class as the exact one for `AGREEMENT` of the images; or, where the precision itself
        costs more than that, for as many as the plain one but for a single image.
    """
    count = sum(len(batch) for batch in exact)
    needed = min(AGREEMENT, agreement(plain, exact) - 1 / count)
    return all(bool(batch.isfinite().all()) for batch in folded) and agreement(folded, exact) >= needed - 1e-6
