"""Regression: squared error in standard deviations, R², targets standardised and put back by the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.tasks.kind import MISTAKES, TaskPrediction, Column, Flags, Kind, LossOptions, Unfit, Values
from zoo.tasks.schema import FACTS, NAN, Target, Task, number_of, whole_numbers

Floats = npt.NDArray[np.float64]

FEW = 20  # different whole numbers up to which they are taken for classes rather than for a quantity
BINS = 4  # quantiles of a quantity that count as answers of their own


class Regression(Kind):
    """A quantity. Outputs in training are values less their mean, in deviations; a saved model's are values."""

    facts = FACTS["regression"]
    purpose = "to say a quantity ({name})"
    usage = 'print(task["name"], mine.item())'
    shown = (("mean error", "mae", ".4g"), ("root mean square", "rmse", ".4g"), ("by the mean", "baseline_mae", ".4g"),
             ("loss", "loss", ".4f"))  # fmt: skip

    def claims(self, column: Column) -> str | None:
        """Numbers, unless they are few and whole."""
        texts = sorted({text for text in column.texts if text is not None})
        few = whole_numbers(texts) and len(texts) <= FEW
        if not texts or few or any(number_of(text) is None for text in texts):
            return None
        return (
            f"task {column.name}: its values are taken for a quantity (regression); "
            f"for classes write …:{column.place[1]}:single-label"
        )

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """Numbers, and nothing where one is not known."""
        column.values()
        targets: list[Target] = []
        for row, text in enumerate(column.texts):
            number = NAN if text is None else number_of(text)
            if number is None:
                raise Unfit(f"row {row + 1} says {str(text)[:60]!r}, which is no number",
                            "write a number, or nothing where it is not known")  # fmt: skip
            targets.append((number,))
        return Task(column.name, self.facts.name), targets

    def strata(self, task: Task, targets: Values) -> Flags:
        """The quarter that its value is in."""
        known = np.isfinite(targets[:, 0])
        edges = np.quantile(targets[known, 0], np.linspace(0, 1, BINS + 1)[1:-1]) if known.any() else []
        place = np.searchsorted(edges, targets[:, 0], side="right")
        flags: Flags = (place[:, None] == np.arange(BINS)) & known[:, None]
        return flags

    def counts(self, task: Task, targets: Values) -> list[int]:
        """Images with a value."""
        return [int(np.isfinite(targets).sum())]

    def fitted(self, task: Task, targets: Values) -> Task:
        """With mean and deviation of the values."""
        values = targets[:, 0]
        values = values[np.isfinite(values)]
        spread = float(values.std()) if len(values) else 0.0
        return replace(task, mean=float(values.mean()) if len(values) else 0.0, std=spread or 1.0)

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """See `regression_loss`."""
        return regression_loss(logits[:, 0], targets[:, 0], task.mean, task.std)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """R², of guesses in the quantity's own unit."""
        guesses = logits[:, 0].double() * task.std + task.mean
        return r_squared(guesses.numpy(), targets[:, 0].double().numpy())

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """With baseline_mae, of always guessing the training images' mean; errors in the quantity's unit."""
        guesses, values = logits[:, 0].double(), targets[:, 0].double()
        said, real = guesses.numpy(), values.numpy()
        off = np.abs(said - real)
        worst = np.argsort(-off, kind="stable")[:MISTAKES]
        return {
            "r2": r_squared(said, real),
            "mae": float(off.mean()),
            "rmse": float(np.sqrt((off**2).mean())),
            "loss": float(regression_loss((guesses - task.mean) / task.std, values, task.mean, task.std)),
            "n": len(real),
            "baseline_mae": float(np.abs(real - task.mean).mean()),
            "mistakes": [{"id": ids[place], "label": f"{real[place]:g}", "predicted": f"{said[place]:.4g}",
                          "probability": None} for place in map(int, worst)],
        }  # fmt: skip

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The value."""
        return [TaskPrediction(value=float(value)) for value in logits[:, 0]]

    def edit_head(self, task: Task, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Times the deviation, plus the mean."""
        weight *= task.std
        bias *= task.std
        bias += task.mean


def regression_loss(outputs: torch.Tensor, values: torch.Tensor, mean: float, std: float) -> torch.Tensor:
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
