from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zoo.data import Batch
from zoo.tasks.kind import LossOptions
from zoo.tasks.multilabel import LOSSES, asymmetric, known_loss, mean_ap
from zoo.tasks.schema import Task
from zoo.training.losses.task_losses import Tasks

NAN = math.nan


def labels(count: int) -> tuple[Task]:
    return (Task("label", "multi-label", tuple("abcd"[:count])),)


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
    loss = known_loss(logits, torch.tensor([[1.0, NAN], [0.0, NAN]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad.tolist() == [[-0.25, 0.0], [0.25, 0.0]]
    assert known_loss(logits, torch.full((2, 2), NAN), asymmetric).item() == 0


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_a_label_counts_as_much_whoever_is_beside_it(loss):
    """Or it would depend on how many processes or accumulated parts a batch is cut into."""
    torch.manual_seed(0)
    images, truth = torch.randn(8, 3), (torch.rand(8, 4) < 0.5).float()
    truth[:3, 1:] = NAN  # all in the first half
    truth[5] = NAN
    share = float(truth.isfinite().float().mean())
    network = nn.Linear(3, 4)
    objective = Tasks(labels(4), options=LossOptions(loss, label_smoothing=0.2), shares=[share])

    def batch(rows: slice) -> Batch:
        return Batch(images[rows], truth[rows], torch.arange(8)[rows])

    whole = objective(network, batch(slice(8)), 0.0).total
    halves = [objective(network, batch(rows), 0.0).total for rows in (slice(4), slice(4, 8))]
    assert whole.item() == pytest.approx(sum(half.item() for half in halves) / 2)
    assert whole.item() == pytest.approx(known_loss(network(images), truth, LOSSES[loss], 0.2).item())


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_it_learns_labels_that_do_not_exclude_each_other(loss):
    torch.manual_seed(0)
    images = torch.randn(64, 2)
    truth = (images > 0).float()
    network, objective = nn.Linear(2, 2), Tasks(labels(2), options=LossOptions(loss))
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
    assert known_loss(logits, truth, smoothing=0.2).item() == pytest.approx(1.0, abs=0.01)
