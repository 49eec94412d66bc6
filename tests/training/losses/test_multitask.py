from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zoo.data import Batch
from zoo.recipes.plan import GroupPlan, PhasePlan
from zoo.tasks.kind import LossOptions
from zoo.tasks.ordinal import ordinal_loss
from zoo.tasks.schema import Task
from zoo.training.async_losses import Step
from zoo.training.losses.task_losses import Tasks, known_shares, projected

NAN = math.nan
TASKS = (Task("kind", "single-label", ("a", "b")), Task("size", "regression", mean=10.0, std=2.0))


class Network(nn.Module):
    """A body and a head, as a timm model has them."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(4, 6), nn.Linear(6, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.tanh(self.body(images)))


def batch(count: int = 8, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 4, generator=generator)
    answers = torch.stack([(images[:, 0] > 0).float(), 10 + 2 * images[:, 1]], 1)
    return Batch(images, answers, torch.arange(count))


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network()


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return dict(zip(dict(model.named_parameters()), found, strict=True))


def test_the_loss_is_the_weighted_sum_of_the_tasks():
    model, images = network(), batch()
    loss = Tasks(TASKS, weights={"size": 0.25})(model, images, 0.0)
    logits = model(images.images)
    kind = nn.functional.cross_entropy(logits[:, :2], images.labels[:, 0].long())
    size = 0.5 * ((logits[:, 2] - (images.labels[:, 1] - 10) / 2) ** 2).mean()
    assert loss.total.item() == pytest.approx((kind + 0.25 * size).item(), rel=1e-6)
    assert {name: value.item() for name, value in loss.parts.items()} == pytest.approx(
        {"kind": kind.item(), "size": size.item()}, rel=1e-6
    )


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "pcgrad"])
def test_what_is_not_known_says_nothing(weighting):
    """A task's rows of the head get no gradient from images that do not answer it."""
    model, images = network(), batch()
    images.labels[:, 1] = NAN
    objective = Tasks(TASKS, weighting=weighting, head=("fc.weight", "fc.bias"))
    loss = objective(model, images, 0.0)
    loss.total.backward()
    assert model.fc.weight.grad[2].abs().max() == 0 and model.fc.weight.grad[:2].abs().max() > 0
    images.labels[:] = NAN
    model.zero_grad()
    empty = objective(model, images, 0.0)
    empty.total.backward()
    assert empty.total.item() == 0 and model.fc.weight.grad.abs().max() == 0
    assert empty.amounts["kind"] == 0, "and the log says nothing of it"


FOUR = (*TASKS, Task("signs", "multi-label", ("x", "y", "z")), Task("step", "ordinal", ("low", "middle", "high")))


def gaps() -> Batch:
    """Eight images, in whose halves not the same is known: of `kind` all is in the first one."""
    torch.manual_seed(1)
    images = torch.randn(8, 4)
    signs = (torch.rand(8, 3) < 0.5).float()
    signs[0, 1] = signs[6, 0] = signs[6, 2] = NAN
    signs[2] = NAN
    steps = torch.tensor([0, 0, 2, NAN, 2, 1, 2, NAN])
    kind = torch.tensor([0, 1, 1, NAN, NAN, NAN, NAN, NAN])
    size = torch.tensor([9.0, NAN, NAN, NAN, 10, 13, 8, 11])
    return Batch(images, torch.cat([torch.stack([kind, size], 1), signs, steps[:, None]], 1), torch.arange(8))


def cut(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.images[rows], batch.labels[rows], batch.indices[rows])


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_an_answer_counts_as_much_whoever_is_beside_it(weighting):
    """Or it would depend on how many processes or accumulated parts a batch is cut into."""
    torch.manual_seed(2)
    model, batch = Network(2 + 1 + 3 + 2), gaps()
    objective = Tasks(FOUR, weighting=weighting, shares=known_shares(FOUR, batch.labels))
    if objective.spread is not None:
        with torch.no_grad():
            objective.spread.copy_(torch.tensor([0.5, -1.0, 0.25, 1.0]))
    whole = objective(model, batch, 0.0)
    halves = [objective(model, cut(batch, rows), 0.0) for rows in (slice(4), slice(4, 8))]
    trained = [*model.parameters(), *objective.parameters()]
    mine = torch.autograd.grad(whole.total, trained)
    theirs = torch.autograd.grad((halves[0].total + halves[1].total) / 2, trained)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    phase = PhasePlan("probe", 1, 9, "constant", 0.0, (GroupPlan("head", 1, 0, 0.5, 0.0, "all", "none"),))
    step = Step(phase, 1, 1, {}, [], tuple(whole.parts), tuple(whole.amounts))
    logged = step.done(*((halves[0].values + halves[1].values) / 2).tolist())
    assert logged.loss == pytest.approx(whole.total.item(), rel=1e-5)
    logits = model(batch.images)
    known = batch.labels[:, 5].isfinite()
    expected = {"kind": nn.functional.cross_entropy(logits[:3, :2], batch.labels[:3, 0].long()),
                "step": ordinal_loss(logits[known, 6:], batch.labels[known, 5])}  # fmt: skip
    for name, value in expected.items():
        assert logged.parts[name] == pytest.approx(value.item(), rel=1e-5), "the log has the mean over those who answer"
    late = objective(model, cut(batch, slice(4, 8)), 0.0)
    assert "kind" not in step.done(*late.values.tolist()).parts, "a step without a task has no loss of it"


def test_shares_are_those_of_the_questions_and_of_what_is_drawn():
    answers = gaps().labels
    kind, size, signs, step = known_shares(FOUR, answers)
    assert (kind, size, signs) == pytest.approx((3 / 8, 5 / 8, 18 / 24))
    assert step == 10 / 16, "two of the lowest step are asked one question, four others two"
    often = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert known_shares(FOUR, answers, often)[:2] == pytest.approx([1.0, 1 / 3])
    assert known_shares(TASKS, torch.full((2, 2), NAN)) == [1.0, 1.0], "nothing is divided by 0"


def test_labels_of_a_task_are_smoothed_where_somebody_asks():
    model, batch = Network(2 + 1 + 3 + 2), gaps()
    plain, smoothed = (
        Tasks(FOUR, options=LossOptions(label_smoothing=share))(model, batch, 0.0).parts for share in (0.0, 0.3)
    )
    assert smoothed["signs"] != plain["signs"] and smoothed["kind"] == plain["kind"]


def test_uncertainty_is_kendalls():
    model, images = network(), batch()
    objective = Tasks(TASKS, weighting="uncertainty")
    with torch.no_grad():
        objective.spread.copy_(torch.tensor([0.5, -1.0]))
    loss = objective(model, images, 0.0)
    kind, size = loss.parts["kind"].item(), loss.parts["size"].item()
    expected = math.exp(-0.5) * kind + 0.25 + math.exp(1.0) * size - 0.5
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert loss.parts["weight of size"].item() == pytest.approx(math.e, rel=1e-6)
    loss.total.backward()
    assert objective.spread.grad.tolist() == pytest.approx([0.5 - math.exp(-0.5) * kind, 0.5 - math.e * size], rel=1e-4)


def test_pcgrad_takes_away_what_works_against_the_other_task():
    model, images = network(3), batch(seed=3)
    head = ("fc.weight", "fc.bias")
    plain = Tasks(TASKS)(model, images, 0.0)
    surgery = Tasks(TASKS, weighting="pcgrad", head=head)(model, images, 0.0)
    assert surgery.total.item() == pytest.approx(plain.total.item(), rel=1e-6), "the value is that of the sum"
    logits = model(images.images)
    each = [gradients(model, nn.functional.cross_entropy(logits[:, :2], images.labels[:, 0].long())),
            gradients(model, 0.5 * ((logits[:, 2] - (images.labels[:, 1] - 10) / 2) ** 2).mean())]  # fmt: skip
    shared = [torch.cat([found[name].flatten() for name in ("body.weight", "body.bias")]) for found in each]
    dot = torch.dot(*shared)
    assert dot < 0, "or the test shows nothing: the tasks must be at odds"
    expected = (shared[0] - dot / shared[1].square().sum() * shared[1]
                + shared[1] - dot / shared[0].square().sum() * shared[0])  # fmt: skip
    found = gradients(model, surgery.total)
    mine = torch.cat([found[name].flatten() for name in ("body.weight", "body.bias")])
    assert torch.allclose(mine, expected, atol=1e-6)
    for name in head:  # what tasks do not share is left alone
        assert torch.allclose(found[name], each[0][name] + each[1][name], atol=1e-6)


def test_a_block_that_ends_like_the_head_is_shared():
    """Squeeze-and-excitation has an `fc` of its own; and processes wrap the network once more."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Network()
            self.module.body = nn.Sequential()
            self.module.body.fc = nn.Linear(4, 6)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.module(images)

    torch.manual_seed(0)
    model, images = Wrapped(), batch(seed=3)
    seen = []

    def watched(gradients):
        seen.append([len(each) for each in gradients])
        return projected(gradients)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.losses.task_losses.projected", watched)
        Tasks(TASKS, weighting="pcgrad", head=("fc.weight", "fc.bias"))(model, images, 0.0)
    assert seen == [[4 * 6 + 6] * 2], "the block's parameters and not the head's"


def test_gradients_at_peace_are_added():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    assert projected([one, other]).tolist() == [2.0, 1.0]
    against = projected([torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])])
    assert against.tolist() == pytest.approx([0.5, 1.5]), "each is made orthogonal to the other as it was"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_each_is_freed_of_the_others_as_they_were(order, monkeypatch):
    """Calculated by hand, one other after the other; (1, 0) meets (-1, 1), then (-1, -2), or the other way about."""
    monkeypatch.setattr(torch, "randperm", lambda count: torch.tensor(order))
    gradients = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, -2.0])]
    freed = {
        (0, 1, 2): [(0.2, -0.1), (-0.4, 0.2), (-1.0, -1.0)],
        (2, 1, 0): [(0.2, 0.2), (0.0, 0.6), (0.0, -1.5)],
    }[order]
    assert projected(gradients).tolist() == pytest.approx([sum(each) for each in zip(*freed, strict=True)])
    assert [each.tolist() for each in gradients] == [[1, 0], [-1, 1], [-1, -2]], "what came is left alone"


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "pcgrad"])
def test_it_learns_both(weighting):
    model, images = network(), batch(64)
    objective = Tasks(TASKS, weighting=weighting, head=("fc.weight", "fc.bias"))
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        objective(model, images, 0.0).total.backward()
        optimizer.step()
    logits = model(images.images)
    assert (logits[:, :2].argmax(1) == images.labels[:, 0]).float().mean() > 0.9
    assert ((10 + 2 * logits[:, 2]) - images.labels[:, 1]).abs().mean() < 0.6
