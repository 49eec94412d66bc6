from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.tasks import single_label
from zoo.tasks.kind import LossOptions
from zoo.tasks.schema import ONE, Task
from zoo.training.losses.supervised import Supervised
from zoo.training.seeds import seed_all

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
IMAGES = torch.randn(6, 3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 2, 2, 1])


def test_plain_cross_entropy_with_smoothing() -> None:
    found = Supervised(3, label_smoothing=0.2).loss(MODEL, IMAGES, LABELS)
    shares = MODEL(IMAGES).log_softmax(1)
    target = functional.one_hot(LABELS, 3) * 0.8 + 0.2 / 3
    assert found.item() == pytest.approx(-(target * shares).sum(1).mean().item(), rel=1e-5)


def test_class_weights_scale_each_image_whatever_is_beside_it() -> None:
    objective = Supervised(3, class_weights=[2.0, 1.0, 0.5])
    whole = objective.loss(MODEL, IMAGES, LABELS)
    halves = [objective.loss(MODEL, IMAGES[part], LABELS[part]) for part in (slice(0, 3), slice(3, 6))]
    assert whole.item() == pytest.approx(sum(half.item() for half in halves) / 2, rel=1e-6)
    alone = functional.cross_entropy(MODEL(IMAGES[:1]), LABELS[:1])
    assert objective.loss(MODEL, IMAGES[:1], LABELS[:1]).item() == pytest.approx(2 * alone.item(), rel=1e-6)


def brier(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(1) - shares).square().sum(1)


def test_a_loss_by_name_takes_smoothing_class_weights_and_unknown_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(single_label.LOSSES, "brier", brier)
    shares = functional.one_hot(LABELS, 3) * 0.8 + 0.2 / 3
    each = brier(MODEL(IMAGES), shares)
    found = Supervised(3, name="brier", label_smoothing=0.2).loss(MODEL, IMAGES, LABELS)
    torch.testing.assert_close(found, each.mean())
    weighted = Supervised(3, name="brier", label_smoothing=0.2, class_weights=[2.0, 1.0, 0.5])
    weights = torch.tensor([2.0, 1.0, 0.5, 0.5, 0.5, 1.0])
    torch.testing.assert_close(weighted.loss(MODEL, IMAGES, LABELS), (each * weights).mean())
    task = Task("kind", ONE, ("a", "b", "c"))
    targets = LABELS.float()[:, None]
    targets[4] = torch.nan
    among = single_label.SingleLabel().loss(task, MODEL(IMAGES), targets, LossOptions("brier", 0.2))
    torch.testing.assert_close(among, each[[0, 1, 2, 3, 5]].mean())
    none = single_label.SingleLabel().loss(task, MODEL(IMAGES), targets[4:5].expand(6, 1), LossOptions("brier", 0.2))
    assert none.item() == 0


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("count", [6, 5, 1])
def test_mixing_follows_the_seed_and_leaves_the_batch_alone(kind: str, count: int) -> None:
    objective = Supervised(3, **{kind: 0.8})
    images, labels = IMAGES[:count].clone(), LABELS[:count]
    values = []
    for seed in (1, 1, 2):
        seed_all(seed, "step")
        values.append(objective.loss(MODEL, images, labels).item())
    assert values[0] == values[1]
    assert (values[0] != values[2]) == (count > 1)
    assert torch.equal(images, IMAGES[:count])


def test_mixed_targets_are_mixed_as_the_images_are() -> None:
    seen: list[torch.Tensor] = []

    class Watching(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return MODEL(images)

    flat = torch.stack([torch.full((3, 8, 8), float(label)) for label in (0, 2)])
    seed_all(1, "step")
    loss = Supervised(3, mixup=1.0).loss(Watching(), flat, torch.tensor([0, 2]))
    (mixed,) = seen
    share = mixed.flatten(1)[:, 0] / 2  # of class 2 in each image, read off its pixels
    target = torch.stack([1 - share, torch.zeros(2), share], dim=1)
    assert 0 < share[0] < 1
    expected = -(target * MODEL(mixed).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
