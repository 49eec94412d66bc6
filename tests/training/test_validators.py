from __future__ import annotations

import math

import pytest
import torch

from zoo.tasks.outputs import Outputs
from zoo.training.selection import has_improved, is_better
from zoo.training.validators import TEMPERATURE, density, entropy, information, with_target

SURE = 50.0 * torch.eye(4).repeat(3, 1)  # of twelve images, three of each class


def test_entropy_and_information_by_hand() -> None:
    assert entropy(SURE) == pytest.approx(0.0, abs=1e-6)
    assert information(SURE) == pytest.approx(math.log(4)), "sure, and of all classes"
    same = 50.0 * torch.eye(4)[[0] * 12]
    assert entropy(same) == pytest.approx(0.0, abs=1e-6) and information(same) == pytest.approx(0.0, abs=1e-6)
    flat = torch.zeros(12, 4)
    assert entropy(flat) == pytest.approx(math.log(4)) and information(flat) == pytest.approx(0.0, abs=1e-9)


def test_density_is_the_entropy_of_similarities_to_the_others() -> None:
    logits = torch.randn(5, 3)
    shares = logits.softmax(1)
    shares = shares / shares.norm(dim=1, keepdim=True)
    total = 0.0
    for one in range(5):
        near = torch.tensor([float(shares[one] @ shares[other]) / TEMPERATURE for other in range(5) if other != one])
        near = near.softmax(0)
        total -= float((near * near.log()).sum())
    assert density(logits) == pytest.approx(total / 5, rel=1e-4)
    assert density(SURE) == pytest.approx(math.log(2), abs=1e-3), "each has two neighbours"
    assert math.isfinite(density(torch.zeros(2, 3)))


def test_scores_have_them_where_the_target_was_looked_at() -> None:
    labels = torch.tensor([0, 1, 2, 3] * 3)
    assert "entropy" not in with_target({}, Outputs(SURE, labels))
    assert with_target({}, Outputs(SURE, labels, SURE))["information"] == pytest.approx(math.log(4))


@pytest.mark.parametrize(("by", "better"), [("information", 0.9), ("density", 0.9), ("entropy", 0.1)])
def test_more_information_and_density_are_better_and_less_entropy(by: str, better: float) -> None:
    one, other = ({"accuracy": 0.5, "loss": 1.0, by: value} for value in (0.5, better))
    assert is_better(other, one, by) and not is_better(one, other, by)
    assert has_improved(other, one, by) and not has_improved(one, other, by)
