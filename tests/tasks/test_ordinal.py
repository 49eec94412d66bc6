from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zoo.tasks.kind import MISTAKES
from zoo.tasks.ordinal import Ordinal, kappa, level_probabilities, levels_of, ordinal_loss
from zoo.tasks.regression import Regression, regression_loss
from zoo.tasks.schema import Task


def test_a_loss_term_counts_only_images_above_the_level_before():
    """CORN: lying above the second level is conditional on lying above the first."""
    logits = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    levels = torch.tensor([0, 2])
    assert ordinal_loss(logits, levels).item() == pytest.approx(math.log(2)), "the 5 of the first image does not count"


def test_probabilities_of_levels_add_up_and_never_rise():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    shares = level_probabilities(logits)
    assert torch.allclose(shares.sum(1), torch.ones(50)) and shares.min() >= 0
    above = 1 - shares.cumsum(1)[:, :-1]
    assert (above[:, 1:] <= above[:, :-1] + 1e-6).all()
    assert torch.equal(levels_of(logits), (above > 0.5).sum(1))


def test_it_learns_an_order():
    torch.manual_seed(0)
    images = torch.rand(200, 1) * 4
    levels = images[:, 0].long()
    network = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        ordinal_loss(network(images), levels).backward()
        optimizer.step()
    task = Task("size", "ordinal", ("a", "b", "c", "d"))
    result = Ordinal().measure(task, network(images).detach(), levels[:, None].float(), [str(i) for i in range(200)])
    assert result["accuracy"] > 0.9 and result["kappa"] > 0.95 and result["mae"] < 0.1
    assert np.array(result["confusion"]).sum() == 200 and len(result["mistakes"]) <= MISTAKES


def test_kappa_is_nothing_where_there_is_one_level():
    assert kappa(np.array([1, 1]), np.array([1, 1]), 3) == 0.0
    assert kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3) == 1.0


def test_a_level_that_never_occurs_still_lies_between_its_neighbours():
    """Of levels 0 to 3, none is a 1: from 0 to 2 are two levels, from 2 to 3 one.

    Disagreement: 4 + 1 = 5 over four images; by chance, truth 0 0 2 3 and guesses 0 2 2 2: for each pair of a true and
    a guessed one, 2 x (0 + 3 x 4) + (4 + 0) + (9 + 3 x 1) = 40 over sixteen, so 1 - (5 / 4) / (40 / 16).
    """
    assert kappa(np.array([0, 2, 2, 2]), np.array([0, 0, 2, 3]), 4) == pytest.approx(0.5)


def test_a_regression_target_is_measured_in_its_own_unit():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    task, guesses = Task("age", "regression", mean=3.0, std=2.0), values + torch.tensor([0.0, 0.0, 1.0, -2.0])
    result = Regression().measure(task, guesses[:, None], values[:, None], ["a", "b", "c", "d"])
    assert result["mae"] == 0.75 and result["rmse"] == pytest.approx(math.sqrt(5 / 4))
    assert result["r2"] == pytest.approx(1 - 5 / 14) and result["baseline_mae"] == 1.5
    assert [row["id"] for row in result["mistakes"]][:2] == ["d", "c"]
    assert regression_loss(torch.zeros(4), values, 3.0, 2.0).item() == pytest.approx(0.5 * 14 / 4 / 4)
