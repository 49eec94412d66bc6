"""The range test tries rates on copies, and leaves no trace on what trains afterwards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.training.toy import Loader, Toy, pieces, same, state_of
from zoo.data import Batch
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.learning_rate import find_rate
from zoo.training.losses.objective import Loss, Objective


class Weighed(Objective):
    """Cross-entropy with a learned weight, and a count of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        self.calls += 1
        loss = functional.cross_entropy(network(batch.images), batch.labels)
        return Loss(torch.exp(-self.weight) * loss + self.weight / 2)


def test_a_step_has_as_many_batches_as_training_accumulates(tmp_path: Path) -> None:
    counted: list[int] = []

    class Counted(Weighed):
        def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
            counted.append(len(batch))
            return super().forward(network, batch, progress)

    objective, recipe, loader = Counted(), Recipe(strategy="finetune", epochs=1, accumulate=3), Loader()
    toy = Toy(tmp_path, recipe, objective=objective)
    work: Any = SimpleNamespace(settled=recipe, loader=loader, objective=objective)
    found = find_rate(pieces(toy.model, toy.accelerator), work, toy.plan.phases[-1])
    assert len(counted) in (3 * len(found.rates), 3 * len(found.rates) + 3), "the last step may have ended the test"


def test_the_objective_stays_as_it_is(tmp_path: Path) -> None:
    objective, recipe, loader = Weighed(), Recipe(strategy="finetune", epochs=1), Loader()
    toy = Toy(tmp_path, recipe, objective=objective)
    before = state_of(toy.model), state_of(objective)
    work: Any = SimpleNamespace(settled=recipe, loader=loader, objective=objective)
    found = find_rate(pieces(toy.model, toy.accelerator), work, toy.plan.phases[-1])
    assert len(found.rates) > 20 and 1e-6 < found.chosen < 1
    assert same(state_of(toy.model), before[0]) and same(state_of(objective), before[1])
    assert objective.weight.grad is None, "the first step of training would take it along"
