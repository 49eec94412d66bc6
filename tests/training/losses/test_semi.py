"""Learning from guesses, on tensors made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from zoo.models.features import Seen
from zoo.recipes.recipe import Recipe
from zoo.training.losses.combined import TermInput, TermSizes
from zoo.training.losses.semi.fixmatch import FixMatch
from zoo.training.losses.semi.flexmatch import FlexMatch
from zoo.training.losses.semi.pseudo import PseudoLabels

SIZES = TermSizes(features=2, classes=3, images=8, threshold=0.8)
SURE = torch.tensor([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.5]])  # two of four
STRONG = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def sight(weak: torch.Tensor, strong: torch.Tensor | None = None, progress: float = 0.5) -> TermInput:
    views = tuple(Seen(torch.zeros(len(weak), 2), logits) for logits in (weak, strong) if logits is not None)
    return TermInput(Seen(torch.zeros(1, 2), torch.zeros(1, 3)), views, torch.arange(len(weak)), progress)


def test_fixmatch_teaches_the_strong_view_what_is_sure_of_the_weak_one() -> None:
    weak, strong = SURE.clone().requires_grad_(), STRONG.clone().requires_grad_()
    found = FixMatch(SIZES)(sight(weak, strong))
    expected = functional.cross_entropy(STRONG[:2], torch.tensor([0, 1]), reduction="sum") / 4
    torch.testing.assert_close(found.total, expected)
    assert found.parts["sure"] == 0.5
    found.total.backward()
    assert weak.grad is None and strong.grad is not None
    assert strong.grad[:2].abs().sum() > 0 and strong.grad[2:].abs().sum() == 0


def test_flexmatch_asks_less_of_classes_that_are_learnt_less_well() -> None:
    term = FlexMatch(SIZES)
    everything = torch.arange(3)
    assert term.threshold(everything).tolist() == [0.0, 0.0, 0.0], "nothing is sure yet: b is 0 of 8"
    term.guessed.copy_(torch.tensor([0, 0, 0, 0, 1, 1, -1, -1]))
    assert term.threshold(everything).tolist() == pytest.approx([0.8, 0.8 * 0.5 / 1.5, 0.0])
    term.guessed.copy_(torch.tensor([0, 0, 1, -1, -1, -1, -1, -1]))  # the warm-up: more are unsure than of any class
    assert term.threshold(everything).tolist() == pytest.approx([0.8 * 0.4 / 1.6, 0.8 * 0.2 / 1.8, 0.0])


def test_flexmatch_remembers_the_last_sure_guess_of_each_image() -> None:
    term = FlexMatch(SIZES)
    term(sight(SURE, STRONG))
    assert term.guessed.tolist() == [0, 1, -1, -1, -1, -1, -1, -1]
    term(sight(SURE[[2, 0, 1, 1]], STRONG))
    assert term.guessed.tolist() == [0, 0, 1, 1, -1, -1, -1, -1], "what is not sure now leaves it as it was"
    assert "guessed" in term.state_dict()


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (1 / 6, 0.0), (7 / 12, 1.5), (1.0, 3.0)])
def test_pseudo_labels_count_for_more_as_training_goes_on(progress: float, weight: float) -> None:
    found = PseudoLabels(SIZES)(sight(SURE, progress=progress))
    torch.testing.assert_close(
        found.total, weight * functional.cross_entropy(SURE, torch.tensor([0, 1, 0, 2])), rtol=1e-5, atol=1e-6
    )


def test_guesses_may_become_sure_unless_somebody_smooths_labels() -> None:
    """With a smoothing of 0.1 a network that is right about ten classes stops at 0.91, and 0.95 is never reached."""
    semi = Recipe(strategy="finetune", unlabelled="elsewhere", semi="fixmatch")
    assert (Recipe().smoothing, semi.smoothing) == (0.1, 0.0)
    assert replace(semi, label_smoothing=0.2).with_preset().label_smoothing == 0.2
    assert semi.with_preset().label_smoothing == 0.0
