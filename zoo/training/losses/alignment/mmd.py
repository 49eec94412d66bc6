"""DAN: Long et al. 2015, "Learning Transferable Features with Deep Adaptation Networks", ICML."""

from __future__ import annotations

import torch

from zoo.training.losses.combined import Term, TermInput
from zoo.training.losses.objective import Loss

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels' widths, times the mean squared distance between two images


class MMD(Term):
    """Multi-kernel maximum mean discrepancy of the features and of the logits (the paper adapts several layers).

    The Gaussian kernels have equal weights. The estimate is the unbiased quadratic one (Gretton et al. 2012), which a
    batch is small enough for; the paper's linear one would use a pair of images once.
    """

    name = "mmd"
    whole = True
    least = 2

    def forward(self, inputs: TermInput) -> Loss:
        """The discrepancy."""
        near, far = inputs.source, inputs.views[0]
        return Loss(discrepancy(near.features, far.features) + discrepancy(near.logits, far.logits))


def discrepancy(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The squared discrepancy of (N, d) and (M, d), a scalar that can be slightly below 0; 0 for single images."""
    count, other = len(source), len(target)
    if min(count, other) < 2:
        return 0.0 * (source.sum() + target.sum())
    both = torch.cat([source, target])
    squares = squared_distances(both)
    width = squares.detach().sum() / (len(both) * (len(both) - 1))
    kernel = torch.stack([torch.exp(-squares / (2 * scale * width).clamp(min=1e-12)) for scale in SCALES]).mean(0)
    within, without = kernel[:count, :count], kernel[count:, count:]
    same = (within.sum() - count) / (count * (count - 1)) + (without.sum() - other) / (other * (other - 1))
    return same - 2 * kernel[:count, count:].mean()


def squared_distances(rows: torch.Tensor) -> torch.Tensor:
    """The (N, N) squared distances between the rows of (N, d), without N x N x d numbers in memory."""
    with torch.autocast(rows.device.type, enabled=False):  # little differences of large products: halves would not do
        centred = rows - rows.detach().mean(0)  # which moves no two rows apart, and makes the products small
        norms = centred.square().sum(1)
        squares = (norms[:, None] + norms[None, :] - 2 * centred @ centred.T).clamp(min=0)
        return squares * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))


METHOD = MMD
