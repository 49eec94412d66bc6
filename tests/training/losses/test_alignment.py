"""Alignment against its papers' formulas, on tensors made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.models.features import Seen
from zoo.training.losses import adversary
from zoo.training.losses.alignment.cdan import CDAN, LARGEST, certainty
from zoo.training.losses.alignment.coral import distance
from zoo.training.losses.alignment.daan import DAAN
from zoo.training.losses.alignment.dann import DANN
from zoo.training.losses.alignment.mcc import TEMPERATURE, confusion
from zoo.training.losses.alignment.mmd import SCALES, discrepancy, squared_distances
from zoo.training.losses.combined import TermInput, TermSizes

SIZES = TermSizes(features=4, classes=3, images=10)


def seen(count: int, seed: int, shift: float = 0.0) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, SIZES.features, generator=generator) + shift
    return Seen(features.requires_grad_(), torch.randn(count, SIZES.classes, generator=generator).requires_grad_())


def sight(progress: float = 0.5, *, source: int = 5, target: int = 7) -> TermInput:
    return TermInput(seen(source, 1), (seen(target, 2, 1.0),), torch.arange(target), progress)


class Fixed(nn.Module):
    """A discriminator that has its mind made up about each batch it is shown, and notes what that is."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits, self.shown = list(logits), []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logit = self.logits[len(self.shown) % len(self.logits)]
        self.shown.append(features.detach().clone())
        return torch.full((len(features), 1), logit)


class Told(nn.Module):
    """A discriminator that is told what to say of each image of the source, and then of the target."""

    def __init__(self, *logits: list[float]) -> None:
        super().__init__()
        self.logits, self.calls = logits, 0

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.tensor(self.logits[self.calls - 1])[:, None]


def both(view: TermInput) -> list[tuple[Seen, float]]:
    """What is seen of each domain, and its label."""
    return [(view.source, 0.0), (view.views[0], 1.0)]


def losses_of(judge: nn.Module, shown: torch.Tensor, label: float) -> torch.Tensor:
    """(B,) cross-entropies of a discriminator."""
    logits = judge(shown)[:, 0]
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")


def written_out(term: CDAN | DAAN, view: TermInput) -> torch.Tensor:
    """The loss of a method as its formula has it, with no gradient turned round."""
    total = torch.zeros(())
    for images, label in both(view):
        if isinstance(term, CDAN):
            total = total + (certainty(images.logits) * losses_of(term.judge, term.products(images), label)).mean() / 2
            continue
        shares = images.logits.detach().softmax(1)
        local = sum(losses_of(judge, shares[:, [number]] * images.features, label).mean()
                    for number, judge in enumerate(term.judges))  # fmt: skip
        local = local / len(term.judges)
        total = total + (0.5 * losses_of(term.judge, images.features, label).mean() + 0.5 * local) / 2
    return total


def test_the_adversarys_strength_is_that_of_the_paper() -> None:
    assert adversary.rising(0.0) == 0.0
    assert adversary.rising(0.1) == pytest.approx(2 / (1 + math.exp(-1)) - 1)
    assert adversary.rising(1.0) == pytest.approx(0.99990920)


def test_source_is_0_and_target_is_1_and_both_count_alike() -> None:
    right = adversary.domain_loss(torch.full((5, 1), -9.0), torch.full((2, 1), 9.0))
    wrong = adversary.domain_loss(torch.full((5, 1), 9.0), torch.full((2, 1), -9.0))
    assert right < 1e-3 and wrong == pytest.approx(9.0, abs=1e-3)
    half = adversary.domain_loss(torch.full((5, 1), 9.0), torch.full((2, 1), 9.0))
    assert half == pytest.approx(4.5, abs=1e-3), "however many images each has"
    assert adversary.domain_error(torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [1.0], [1.0], [-1.0]])) == (
        pytest.approx((0.5 + 0.25) / 2)
    )


def test_dann_turns_the_gradient_round_for_the_features_and_not_for_the_discriminator() -> None:
    torch.manual_seed(0)
    term, view = DANN(SIZES), sight(0.3)
    loss = term(view).total
    features = torch.cat([view.source.features, view.views[0].features])
    truth = torch.tensor([0.0] * 5 + [1.0] * 7)
    plain = functional.binary_cross_entropy_with_logits(
        term.judge(features)[:, 0], truth, weight=torch.tensor([0.1] * 5 + [0.5 / 7] * 7), reduction="sum"
    )
    torch.testing.assert_close(loss, plain)
    wanted = torch.autograd.grad(plain, [view.source.features, *term.judge.parameters()])
    found = torch.autograd.grad(loss, [view.source.features, *term.judge.parameters()])
    torch.testing.assert_close(found[0], -adversary.rising(0.3) * wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(one, other)


def test_cdan_sees_features_times_probabilities_and_weighs_by_certainty() -> None:
    torch.manual_seed(0)
    term, view = CDAN(SIZES), sight()
    products = term.products(view.source)
    shares = view.source.logits.softmax(1)
    for row in range(5):
        expected = torch.outer(shares[row], view.source.features[row]).flatten()
        torch.testing.assert_close(products[row], expected)
    entropy = -(shares * shares.log()).sum(1)
    weights = 1 + torch.exp(-entropy)
    torch.testing.assert_close(certainty(view.source.logits), weights / weights.mean())
    with torch.no_grad():
        term.judge[-1].weight.mul_(20)  # so that it judges images differently, and weights show
    judged = [losses_of(term.judge, term.products(images), label) for images, label in both(view)]
    wanted = sum((certainty(images.logits) * losses).mean() / 2
                 for (images, _), losses in zip(both(view), judged, strict=True))  # fmt: skip
    torch.testing.assert_close(term(view).total, wanted)
    plain = sum(losses.mean() / 2 for losses in judged)
    assert (plain - wanted).abs() > 1e-3
    (gradient,) = torch.autograd.grad(term.products(view.source).sum(), view.source.logits, allow_unused=True)
    assert gradient is None, "the probabilities are a condition, and not adapted through"


@pytest.mark.parametrize("method", [CDAN, DAAN])
def test_the_others_turn_the_gradient_round_as_dann_does(method: type[CDAN | DAAN]) -> None:
    torch.manual_seed(0)
    term, view = method(SIZES), sight(0.3)
    asked = [view.source.features, view.views[0].features]
    own = list(term.parameters())
    found = torch.autograd.grad(term(view).total, [*asked, *own])
    wanted = torch.autograd.grad(written_out(term, view), [*asked, *own])
    for one, other in zip(found[:2], wanted[:2], strict=True):
        assert other.abs().max() > 1e-4
        torch.testing.assert_close(one, -adversary.rising(0.3) * other)
    for one, other in zip(found[2:], wanted[2:], strict=True):
        torch.testing.assert_close(one, other)


def test_cdan_multiplies_in_random_directions_where_there_are_too_many_products() -> None:
    wide = CDAN(TermSizes(features=LARGEST, classes=3, images=1))
    one = Seen(torch.randn(20, LARGEST), torch.randn(20, 3))
    found = wide.products(one)
    assert found.shape == (20, 1024) and "of_features" in wide.state_dict(), "the directions are kept for a resume"
    # Inner products are those of the whole outer products, in expectation (Long et al. 2018).
    shares = one.logits.softmax(1)
    exact = (one.features @ one.features.T) * (shares @ shares.T)
    assert torch.corrcoef(torch.stack([(found @ found.T).flatten(), exact.flatten()]))[0, 1] > 0.9


def test_daans_local_discriminators_get_source_0_target_1_and_the_class_weights() -> None:
    term, view = DAAN(SIZES), sight()
    term.judge = Fixed(0.0)
    judges = [Fixed(-6.0, 6.0), Fixed(6.0, -6.0), Fixed(6.0, 6.0)]  # of source, then of target
    term.judges = nn.ModuleList(judges)
    found = term(view)
    for number, judge in enumerate(judges):
        near, far = judge.shown
        for features, images in ((near, view.source), (far, view.views[0])):
            share = images.logits.softmax(1)[:, number : number + 1]
            torch.testing.assert_close(features, share * images.features)
    # Right about both, wrong about both, wrong about the source alone: a loss of 0, 6 and 3, and a half for omega.
    right, wrong = functional.softplus(torch.tensor(-6.0)), functional.softplus(torch.tensor(6.0))
    local = (right + wrong + (right + wrong) / 2) / 3
    torch.testing.assert_close(found.total, 0.5 * math.log(2) + 0.5 * local)
    assert found.parts["omega"] == 0.5
    assert found.parts["class_domain_error"] == pytest.approx((0 + 1 + 0.5) / 3)


def test_daan_weighs_the_errors_of_a_class_by_probability() -> None:
    """The first of five source images is taken for one of the target; all of the target are told rightly."""
    term, view = DAAN(SIZES), sight()
    said = [3.0, -3.0, -3.0, -3.0, -3.0], [3.0] * 7
    term.judge, term.judges = Fixed(0.0), nn.ModuleList(Told(*said) for _ in range(3))
    shares = view.source.logits.softmax(1)
    wanted = (shares[0] / shares.sum(0) / 2).mean().detach()
    found = term(view)
    torch.testing.assert_close(found.parts["class_domain_error"], wanted)
    assert abs(float(wanted) - 0.1) > 1e-3, "if all images counted alike, it would be half a fifth"


def test_daans_errors_count_each_image_by_its_probability_of_the_class() -> None:
    logits = torch.tensor([[1.0], [-1.0]])
    weights = torch.tensor([0.9, 0.1])
    assert adversary.domain_error(logits, -logits, (weights, weights)) == pytest.approx(0.9)
    assert adversary.domain_error(logits, logits, (weights, weights)) == pytest.approx((0.9 + 0.1) / 2)


def test_local_discriminators_take_no_more_memory_with_many_classes() -> None:
    def width(classes: int) -> int:
        with torch.device("meta"):
            first = DAAN(TermSizes(features=2048, classes=classes, images=10)).judges[0][0]
        return first.out_features

    assert [width(classes) for classes in (2, 65, 130, 1000)] == [1024, 1024, 512, 66]


@pytest.mark.parametrize(
    ("whole", "local", "omega"),
    [(0.5, 0.0, 1.0), (0.0, 0.5, 0.0), (0.25, 0.25, 0.5), (0.125, 0.375, 0.25), (0.5, 0.5, 0.5), (0.9, 0.7, 0.5)],
)
def test_omega_leans_to_where_the_domains_differ_more(whole: float, local: float, omega: float) -> None:
    """The A-distance is 2 (1 - 2 e), never below 0: worse than guessing is as good as guessing."""
    term = DAAN(SIZES)
    assert term.omega == 0.5
    for _ in range(3):
        term.remember(torch.tensor(whole), torch.tensor(local))
        assert term.omega == pytest.approx(omega)
    assert "distances" in term.state_dict(), "it goes on from there after a resume"


def test_omega_decides_how_much_each_side_counts() -> None:
    term, view = DAAN(SIZES), sight()
    term.distances.copy_(torch.tensor([0.5, 1.5]))
    term.judge, term.judges = Fixed(0.0), nn.ModuleList(Fixed(-30.0, 30.0) for _ in range(3))
    torch.testing.assert_close(term(view).total, torch.tensor(0.25 * math.log(2)))


def test_coral_is_the_distance_of_covariances() -> None:
    source, target = torch.randn(6, 3), 2 * torch.randn(9, 3)
    gap = np.cov(source.numpy(), rowvar=False) - np.cov(target.numpy(), rowvar=False)
    assert distance(source, target).item() == pytest.approx((gap**2).sum() / (4 * 3**2), rel=1e-4)
    assert distance(source, source + 5).item() == pytest.approx(0.0, abs=1e-6), "means do not count"
    assert distance(source[:1], target) == 0.0


def test_what_compares_images_of_a_batch_is_computed_in_float32_whatever_the_network_is() -> None:
    view = sight(source=6, target=9)
    for compare in (
        lambda: distance(view.source.logits, view.views[0].logits),
        lambda: discrepancy(view.source.features, view.views[0].features),
        lambda: confusion(view.views[0].logits),
    ):
        expected = compare()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(compare(), expected)


def test_mmd_is_the_unbiased_estimate_written_out() -> None:
    source, target = torch.randn(4, 3), torch.randn(5, 3) + 1
    both = [*source, *target]
    squares = [[float((a - b).square().sum()) for b in both] for a in both]
    width = sum(map(sum, squares)) / (9 * 8)

    def kernel(a: int, b: int) -> float:
        return sum(math.exp(-squares[a][b] / (2 * scale * width)) for scale in SCALES) / len(SCALES)

    near, far = range(4), range(4, 9)
    expected = (
        sum(kernel(a, b) for a in near for b in near if a != b) / 12
        + sum(kernel(a, b) for a in far for b in far if a != b) / 20
        - 2 * sum(kernel(a, b) for a in near for b in far) / 20
    )
    assert discrepancy(source, target).item() == pytest.approx(expected, rel=1e-4)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 20, 3, generator=generator) for _ in range(200)]
    assert abs(np.mean([discrepancy(one, other).item() for one, other in draws])) < 0.01
    assert np.mean([discrepancy(one, other + 1).item() for one, other in draws]) > 0.1


def test_distances_are_those_written_out_and_take_no_more_memory_than_pairs() -> None:
    rows = (torch.randn(9, 40) + 30).requires_grad_()
    plain = (rows[:, None] - rows[None]).square().sum(2)
    found = squared_distances(rows)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-3)
    assert not found.diagonal().any() and (squared_distances(torch.ones(3, 2) / 3) == 0).all(), "none is below 0"
    weights = torch.randn(9, 9)
    gradients = [torch.autograd.grad((weights * each).sum(), rows)[0] for each in (found, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)


def test_a_discriminator_is_as_wide_as_its_papers_where_features_are_as_many() -> None:
    assert [adversary.hidden(features) for features in (64, 512, 768, 2048, 4096)] == [256, 256, 384, 1024, 1024]
    wide = CDAN(TermSizes(features=768, classes=3, images=1)).judge
    assert [(layer.in_features, layer.out_features) for layer in wide[::2]] == [(2304, 384), (384, 384), (384, 1)]


def test_mcc_is_the_papers_confusion_written_out() -> None:
    logits = torch.randn(6, 3)
    shares = (logits / TEMPERATURE).softmax(1).numpy()
    weights = 1 + np.exp((shares * np.log(shares)).sum(1))
    weights = 6 * weights / weights.sum()
    matrix = np.array([[sum(weights * shares[:, a] * shares[:, b]) for b in range(3)] for a in range(3)])
    matrix /= matrix.sum(1, keepdims=True)
    assert confusion(logits).item() == pytest.approx((matrix.sum() - np.trace(matrix)) / 3, rel=1e-5)
    assert confusion(100 * torch.eye(3)).item() == pytest.approx(0.0, abs=1e-5)
    assert confusion(torch.zeros(4, 3)).item() == pytest.approx(2 / 3)


def test_the_classifier_is_not_made_to_help_daans_discriminators() -> None:
    term, view = DAAN(SIZES), sight()
    gradients = torch.autograd.grad(term(view).total, [view.source.features, view.source.logits], allow_unused=True)
    assert gradients[0] is not None and gradients[1] is None
