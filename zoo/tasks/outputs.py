"""Outputs: the logits of a model over a set of images, with their true labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

TEMPERATURES = np.logspace(-2, 2, 33, base=2.0).tolist()  # tried for the refinement error


class Outputs:
    """What a model said about a set of images, in the set's order.

    Args:
        logits: (N, classes), float32, on the CPU.
        labels: (N,), int64.
        target: What it said about images without labels, (M, classes), if it was asked.
        positions: (N,), the images' places in the set, where unreadable ones may be left out; None: all are there.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        target: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> None:
        self.logits = logits
        self.labels = labels
        self.target = target
        self.positions = torch.arange(len(logits)) if positions is None else positions


Scores = Callable[[Outputs], dict[str, float]]
