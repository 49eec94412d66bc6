"""A quantity: how far off predictions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]


def quantity_loss(outputs: torch.Tensor, values: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Half the mean squared error of outputs in units of the deviation: a Gaussian's nats, but for a constant.

    Args:
        outputs: (N,), of values less their mean, in deviations.
        values: (N,), as they are; NaN where one is not known, which does not count.
        mean: Of the training images' values.
        std: The same.
    """
    known = values.isfinite()
    off = (outputs - ((values - mean) / std).nan_to_num()) * known
    return 0.5 * off.square().sum() / known.sum().clamp(min=1)


def r_squared(guesses: Floats, values: Floats) -> float:
    """Share of the variance that predictions explain: 1 where all are right, 0 where the mean would do as well."""
    spread = float(((values - values.mean()) ** 2).sum())
    return 1.0 - float(((values - guesses) ** 2).sum()) / spread if spread else 0.0


def measure_quantity(
    guesses: torch.Tensor, values: torch.Tensor, mean: float, std: float, ids: Sequence[str], most: int
) -> dict[str, Any]:
    """Everything that a result says about a quantity.

    Args:
        guesses: (N,), in the quantity's own unit.
        values: (N,), the same.
        mean: Of the training images' values.
        std: The same.
        ids: Name of each image.
        most: Mistakes that are kept.

    Returns:
        Plain values: r2, mae and rmse in the quantity's unit, loss (see `quantity_loss`), n, baseline_mae (of always
        guessing the training images' mean), mistakes (the farthest off).
    """
    said, real = guesses.double().numpy(), values.double().numpy()
    off = np.abs(said - real)
    worst = np.argsort(-off, kind="stable")[:most]
    return {
        "r2": r_squared(said, real),
        "mae": float(off.mean()),
        "rmse": float(np.sqrt((off**2).mean())),
        "loss": float(quantity_loss((guesses.double() - mean) / std, values.double(), mean, std)),
        "n": len(real),
        "baseline_mae": float(np.abs(real - mean).mean()),
        "mistakes": [{"id": ids[place], "label": f"{real[place]:g}", "predicted": f"{said[place]:.4g}",
                      "probability": None} for place in map(int, worst)],
    }  # fmt: skip
