"""Regression: squared error of standardised targets, R²; the saved head restores their unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from zoo.tasks.kind import MISTAKES, Column, Flags, Kind, LossOptions, TaskPrediction, Unfit, Values, mistake
from zoo.tasks.schema import FACTS, NAN, Target, Task, number_of, whole_numbers

FEW = 20  # distinct whole numbers; at most this many are taken for classes
BINS = 4  # quantiles of the target, as strata


class Regression(Kind):
    """A regression target. In training outputs are standardised, (value - mean) / std; a saved model's are values."""

    facts = FACTS["regression"]
    purpose = "to predict a number ({name})"
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
            f"task {column.name}: its values are taken for numbers to predict (regression); "
            f"for classes write …:{column.place[1]}:single-label"
        )

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        """Numbers; empty cells are unknown."""
        column.values()
        targets: list[Target] = []
        for row, text in enumerate(column.texts):
            number = NAN if text is None else number_of(text)
            if number is None:
                what = f"row {row + 1} says {str(text)[:60]!r}, which is not a number"
                raise Unfit(what, "write a number, or leave the cell empty if it is not known")
            targets.append((number,))
        return Task(column.name, self.facts.name), targets

    def strata(self, task: Task, targets: Values) -> Flags:
        """The quartiles of the target."""
        known = np.isfinite(targets[:, 0])
        edges = np.quantile(targets[known, 0], np.linspace(0, 1, BINS + 1)[1:-1]) if known.any() else []
        quartile = np.searchsorted(edges, targets[:, 0], side="right")
        flags: Flags = (quartile[:, None] == np.arange(BINS)) & known[:, None]
        return flags

    def counts(self, task: Task, targets: Values) -> list[int]:
        """Images with a value."""
        return [int(np.isfinite(targets).sum())]

    def fitted(self, task: Task, targets: Values) -> Task:
        """The task with mean and standard deviation of the values, 1 if all are equal; unchanged without values."""
        values = targets[:, 0]
        values = values[np.isfinite(values)]
        return replace(task, mean=float(values.mean()), std=float(values.std()) or 1.0) if len(values) else task

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        """See `regression_loss`."""
        return regression_loss(logits[:, 0], targets[:, 0], task.mean, task.std)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        """R², of predictions in the target's unit."""
        guesses = logits[:, 0].double() * task.std + task.mean
        return r_squared(guesses.numpy(), targets[:, 0].double().numpy())

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        """With baseline_mae, of always guessing the training images' mean; errors in the target's unit."""
        outputs, values = logits[:, 0].double(), targets[:, 0].double()
        guesses, real = outputs.numpy(), values.numpy()
        off = np.abs(guesses - real)
        worst = np.argsort(-off, kind="stable")[:MISTAKES]
        return {
            "r2": r_squared(guesses, real),
            "mae": float(off.mean()),
            "rmse": float(np.sqrt((off**2).mean())),
            "loss": float(regression_loss((outputs - task.mean) / task.std, values, task.mean, task.std)),
            "n": len(real),
            "baseline_mae": float(np.abs(real - task.mean).mean()),
            "mistakes": [mistake(ids[at], f"{real[at]:g}", f"{guesses[at]:.4g}", None) for at in map(int, worst)],
        }

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        """The value."""
        return [TaskPrediction(value=float(value)) for value in logits[:, 0]]

    def edit_head(self, task: Task, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Undo the standardisation of targets."""
        weight *= task.std
        bias *= task.std
        bias += task.mean


def regression_loss(outputs: torch.Tensor, values: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Half the mean squared error of standardised outputs (N,): a Gaussian's nats, but for a constant.

    Values (N,) are in their own unit, NaN if unknown; mean and standard deviation are of the training images.
    """
    known = values.isfinite()
    # Unknown values become 0 first: NaN times 0 would stay NaN.
    off = (outputs - ((values - mean) / std).nan_to_num()) * known
    return 0.5 * off.square().sum() / known.sum().clamp(min=1)


def r_squared(guesses: Values, values: Values) -> float:
    """Share of the variance that predictions explain: 1 if all are right, 0 if the mean does as well."""
    spread = float(((values - values.mean()) ** 2).sum())
    return 1.0 - float(((values - guesses) ** 2).sum()) / spread if spread else 0.0
