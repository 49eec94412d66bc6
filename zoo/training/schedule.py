"""How the learning rate moves within a phase, as a pure function."""

from __future__ import annotations

import math


def rate_factor(step: int, steps: int, *, kind: str, warmup: float) -> float:
    """The share of the peak rate that one step uses.

    Args:
        step: Index of the step within its phase, from 0.
        steps: Steps in the phase.
        kind: "one-cycle" (Smith and Topin 2018: cosine up from 1/25, cosine down to 1/10,000), "cosine" (linear
            warm-up, cosine down to 0) or "constant" (linear warm-up, then 1).
        warmup: Share of the steps in which the rate rises.

    Returns:
        A factor in (0, 1].
    """
    position = (step + 0.5) / steps
    if position < warmup:
        rise = position / warmup
        return _cosine(1 / 25, 1.0, rise) if kind == "one-cycle" else rise
    fall = (position - warmup) / (1.0 - warmup)
    if kind == "constant":
        return 1.0
    return _cosine(1.0, 1e-4 if kind == "one-cycle" else 0.0, fall)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0
