"""Outputs: a model's logits over a set of images, with their targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

TEMPERATURES = np.logspace(-2, 2, 33, base=2.0).tolist()  # tried for the refinement error


class Outputs:
    """A model's outputs over a set of images, in the set's order, on the CPU.

    Args:
        logits: (N, outputs), float32.
        labels: (N,), int64 classes; or (N, columns), the targets of tasks.
        target: Logits of unlabelled images of the target domain, (M, outputs).
        positions: (N,), the images' positions in the set, if unreadable ones are left out; None: all are there.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        target: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> None:
        self.logits, self.labels, self.target = logits, labels, target
        self.positions = torch.arange(len(logits)) if positions is None else positions


Scores = Callable[[Outputs], dict[str, float]]
