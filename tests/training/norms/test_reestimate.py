"""Norm statistics, re-estimated on other images: what changes, and what must not."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tests.training.toy import net
from zoo.data import Batch
from zoo.training.machine import Machine, make_accelerator
from zoo.training.norms.reestimate import features, is_better, recalibrate, shift


def batches(*, scale: float = 1.0, centre: float = 0.0, count: int = 4, size: int = 8) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        Batch(scale * torch.randn(size, 3, 6, 6, generator=generator) + centre, torch.zeros(size, dtype=torch.long),
              torch.arange(size))
        for _ in range(count)
    ]  # fmt: skip


@pytest.fixture
def accelerator() -> Accelerator:
    return make_accelerator(Machine("cpu", "fp32", 1, 1))


def test_statistics_become_those_of_the_images_and_nothing_else_changes(accelerator: Accelerator) -> None:
    model, given = net().train(), batches(scale=3.0, centre=1.0)
    model.drop.eval()  # a module with a mode of its own
    before = copy.deepcopy(model.state_dict())
    assert recalibrate(model, given, accelerator) == 32
    with torch.no_grad():
        seen = [model.conv(batch.images) for batch in given]
    means = torch.stack([values.mean((0, 2, 3)) for values in seen]).mean(0)
    variances = torch.stack([values.var((0, 2, 3)) for values in seen]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, means)
    torch.testing.assert_close(model.norm.running_var, variances)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{norm}.{name}" for norm in ("norm", "after")
                       for name in ("running_mean", "running_var", "num_batches_tracked")}  # fmt: skip
    assert model.training and model.norm.training and not model.drop.training
    assert model.norm.momentum == nn.BatchNorm2d(1).momentum


def test_a_small_last_batch_does_not_count(accelerator: Accelerator) -> None:
    with_rest, without = net(), net()
    assert recalibrate(with_rest, [*batches(), *batches(centre=9.0, count=1, size=1)], accelerator) == 32
    recalibrate(without, batches(), accelerator)
    assert all(torch.equal(tensor, without.state_dict()[name]) for name, tensor in with_rest.state_dict().items())


def test_a_second_time_gives_the_same_bits(accelerator: Accelerator) -> None:
    once, twice = net(), net()
    recalibrate(once, batches(), accelerator)
    recalibrate(twice, batches(centre=5.0), accelerator)  # what was there before leaves no trace
    recalibrate(twice, batches(), accelerator)
    assert all(torch.equal(tensor, twice.state_dict()[name]) for name, tensor in once.state_dict().items())


def test_when_it_cannot_be_finished_the_statistics_are_as_they_were(accelerator: Accelerator) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())

    def broken() -> Iterator[Batch]:
        yield from batches(count=1)
        raise OSError("no such image")

    with pytest.raises(OSError, match="no such image"):
        recalibrate(model, broken(), accelerator)
    with pytest.raises(ValueError, match="no images"):
        recalibrate(model, [], accelerator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.norm.momentum == nn.BatchNorm2d(1).momentum


def test_shift_is_the_change_of_contrast_at_the_first_norm(accelerator: Accelerator) -> None:
    model, given = net(), batches()
    recalibrate(model, given, accelerator)
    before = copy.deepcopy(model.state_dict())
    images = torch.cat([batch.images for batch in given])
    assert shift(model, images, accelerator) < 0.05
    assert shift(model, 10 * images, accelerator) == pytest.approx(np.log(10), rel=0.02)
    assert shift(model, images + 4.0, accelerator) < 0.05, "brightness is no contrast"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert shift(nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), images, accelerator) == 0.0


def test_features_are_those_of_evaluation(accelerator: Accelerator) -> None:
    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(images)

        def forward_head(self, images: torch.Tensor, pre_logits: bool) -> torch.Tensor:
            assert pre_logits
            return images.mean((2, 3))

    model, given = Headed().train(), batches(centre=2.0)
    found, labels = features(model, given, accelerator)
    expected = torch.cat([batch.images for batch in given]).mean((2, 3)) / (1 + model.norm.eps) ** 0.5
    torch.testing.assert_close(found, expected)
    assert labels.tolist() == [0] * 32 and model.training
    assert model.norm.num_batches_tracked == 0


@pytest.mark.parametrize(("gained", "lost", "better"), [(1, 0, False), (2, 0, True), (12, 8, False), (16, 8, True)])
def test_better_is_more_than_chance(gained: int, lost: int, better: bool) -> None:
    right = np.array([True] * gained + [False] * lost + [True] * 20)
    than = np.array([False] * gained + [True] * lost + [True] * 20)
    assert is_better(right, than) is better
    assert is_better(than, right) is False
