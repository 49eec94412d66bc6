from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zoo.tasks.kind import MISTAKES
from zoo.tasks.ordinal import Ordinal, kappa, ordinal_loss, levels_of, level_probabilities
from zoo.tasks.regression import Regression, regression_loss
from zoo.tasks.schema import Task


def test_the_loss_asks_only_who_got_so_far():
    """CORN: whether an image lies above the second step is a question to those above the first."""
    logits = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    steps = torch.tensor([0, 2])
    assert ordinal_loss(logits, steps).item() == pytest.approx(math.log(2)), "the 5 of the first image is not asked"


def test_probabilities_of_steps_add_up_and_never_rise():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    shares = level_probabilities(logits)
    assert torch.allclose(shares.sum(1), torch.ones(50)) and shares.min() >= 0
    above = 1 - shares.cumsum(1)[:, :-1]
    assert (above[:, 1:] <= above[:, :-1] + 1e-6).all()
    assert torch.equal(levels_of(logits), (above > 0.5).sum(1))


def test_it_learns_an_order():
    torch.manual_seed(0)
    images = torch.rand(200, 1) * 4
    steps = images[:, 0].long()
    network = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        ordinal_loss(network(images), steps).backward()
        optimizer.step()
    task = Task("size", "ordinal", ("a", "b", "c", "d"))
    result = Ordinal().measure(task, network(images).detach(), steps[:, None].float(), [str(i) for i in range(200)])
    assert result["accuracy"] > 0.9 and result["kappa"] > 0.95 and result["mae"] < 0.1
    assert np.array(result["confusion"]).sum() == 200 and len(result["mistakes"]) <= MISTAKES


def test_kappa_is_nothing_where_there_is_one_step():
    assert kappa(np.array([1, 1]), np.array([1, 1]), 3) == 0.0
    assert kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3) == 1.0


def test_a_step_that_nobody_has_still_lies_between_its_neighbours():
    """Of steps 0 to 3, none is a 1: from 0 to 2 it is two steps, and 2 to 3 is one.

    Disagreement: 4 + 1 = 5 over four images; by chance, truth 0 0 2 3 and guesses 0 2 2 2: for each pair of a true and
    a guessed one, 2 x (0 + 3 x 4) + (4 + 0) + (9 + 3 x 1) = 40 over sixteen, so 1 - (5 / 4) / (40 / 16).
    """
    assert kappa(np.array([0, 2, 2, 2]), np.array([0, 0, 2, 3]), 4) == pytest.approx(0.5)


def test_a_quantity_is_measured_in_its_own_unit():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    task, guesses = Task("age", "regression", mean=3.0, std=2.0), values + torch.tensor([0.0, 0.0, 1.0, -2.0])
    result = Regression().measure(task, guesses[:, None], values[:, None], ["a", "b", "c", "d"])
    assert result["mae"] == 0.75 and result["rmse"] == pytest.approx(math.sqrt(5 / 4))
    assert result["r2"] == pytest.approx(1 - 5 / 14) and result["baseline_mae"] == 1.5
    assert [row["id"] for row in result["mistakes"]][:2] == ["d", "c"]
    assert regression_loss(torch.zeros(4), values, 3.0, 2.0).item() == pytest.approx(0.5 * 14 / 4 / 4)
