from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zoo.data import Batch
from zoo.engine.multilabel import mean_ap
from zoo.objectives.multilabel import MultiLabel, asymmetric, label_loss

NAN = math.nan


def test_asymmetric_is_the_papers_formula():
    logits, targets = torch.tensor([[0.3, 0.3, -4.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = 1 / (1 + math.exp(-0.3))
    shifted = p - 0.05
    found = asymmetric(logits, targets)[0].tolist()
    assert found[0] == pytest.approx(-math.log(p))
    assert found[1] == pytest.approx(-(shifted**4) * math.log(1 - shifted))
    assert found[2] == 0, "an easy absence is left out"


def test_an_unknown_label_has_neither_loss_nor_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    loss = label_loss(logits, torch.tensor([[1.0, NAN], [0.0, NAN]]), "bce", 0.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad.tolist() == [[-0.25, 0.0], [0.25, 0.0]]
    assert label_loss(logits, torch.full((2, 2), NAN), "asymmetric", 0.0).item() == 0


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_it_learns_labels_that_do_not_exclude_each_other(loss):
    torch.manual_seed(0)
    images = torch.randn(64, 2)
    truth = (images > 0).float()
    network, objective = nn.Linear(2, 2), MultiLabel(loss)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    batch = Batch(images, truth, torch.arange(64))
    for _ in range(60):
        optimizer.zero_grad()
        objective(network, batch, 0.0).total.backward()
        optimizer.step()
    # In order, not around 0: the asymmetric loss says "there" too readily, which thresholds put right.
    assert mean_ap(network(images).detach(), truth) > 0.98


def test_smoothing_moves_both_answers_inwards():
    logits = torch.tensor([[10.0, -10.0]])
    truth = torch.tensor([[1.0, 0.0]])
    assert label_loss(logits, truth, "bce", 0.2).item() == pytest.approx(1.0, abs=0.01)
