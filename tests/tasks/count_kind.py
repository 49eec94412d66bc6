"""A fifth kind of task, in one file: how many of something an image shows, by Poisson regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.tasks import kinds
from zoo.tasks.kind import Column, Flags, Kind, LossOptions, TaskPrediction, Unfit, Values
from zoo.tasks.schema import NAN, Facts, Measure, Target, Task


class Count(Kind):
    """A whole number from 0 on; the one output is the logarithm of what is expected."""

    facts = Facts(
        "count",
        (Measure("explained", "explained deviance"), Measure("mae", hub=("mae", "Mean error"))),
        "always guessing the mean",
        noun="count",
        chance=True,
        outputs=lambda task: (f"log {task.name}",),
    )

    purpose = "to count ({name})"
    usage = 'print(task["name"], mine.exp().item())'
    shown = (("mean error", "mae", ".3f"), ("loss", "loss", ".4f"))

    def read(self, column: Column) -> tuple[Task, list[Target]]:
        column.values()
        odd = next((row for row, text in enumerate(column.texts) if text is not None and not text.isdigit()), None)
        if odd is not None:
            raise Unfit(f"row {odd + 1} says {column.texts[odd]!r}, which counts nothing", "write 0, 1, 2, …")
        return Task(column.name, "count"), [(NAN if text is None else float(text),) for text in column.texts]

    def strata(self, task: Task, targets: Values) -> Flags:
        return np.concatenate([targets == 0, targets > 0], axis=1)

    def counts(self, task: Task, targets: Values) -> list[int]:
        return [int(np.isfinite(targets).sum())]

    def loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, options: LossOptions) -> torch.Tensor:
        known = targets.isfinite()
        each = functional.poisson_nll_loss(logits, targets.nan_to_num(), log_input=True, reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def score(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> float:
        return explained(logits.double().exp(), targets.double())

    def measure(self, task: Task, logits: torch.Tensor, targets: torch.Tensor, ids: Sequence[str]) -> dict[str, Any]:
        expected, real = logits.double().exp(), targets.double()
        off = (expected - real).abs()[:, 0]
        worst = off.argsort(descending=True)[:5].tolist()
        return {
            "explained": explained(expected, real),
            "mae": float(off.mean()),
            "loss": float(self.nats(task, logits.double(), real)),
            "n": len(real),
            "mistakes": [{"id": ids[row], "label": f"{real[row, 0]:g}", "predicted": f"{expected[row, 0]:.1f}",
                          "probability": None} for row in worst],
        }  # fmt: skip

    def predict(self, task: Task, logits: torch.Tensor, top: int) -> list[TaskPrediction]:
        return [TaskPrediction(value=value) for value in logits[:, 0].exp().tolist()]


def explained(expected: torch.Tensor, real: torch.Tensor) -> float:
    """The share of the Poisson deviance from the mean that is explained."""

    def deviance(rate: torch.Tensor) -> float:
        return float(2 * (torch.xlogy(real, real / rate) - real + rate).sum())

    whole = deviance(real.mean().clamp(min=1e-9).expand_as(real))
    return 1 - deviance(expected) / whole if whole else 0.0


kinds.register(Count())
