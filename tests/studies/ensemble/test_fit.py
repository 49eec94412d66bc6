"""Ways of combining, on members whose worth is known."""

from __future__ import annotations

import pytest
import torch

from zoo.runs.stacked.combine import KINDS, Combiner, MemberOutputs, calibrated
from zoo.runs.stacked.model import read_combiner, write_combiner
from zoo.studies.ensemble.fit import Fitted, best_temperature, chosen_of, fitted
from zoo.studies.ensemble.standings import Entry, contest

IMAGES, CLASSES = 120, 3


def member(strength: float, seed: int, labels: torch.Tensor) -> torch.Tensor:
    """Log-probabilities that tell the truth as far as `strength` goes."""
    noise = torch.randn(len(labels), CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[torch.arange(len(labels)), labels] += strength
    return noise.log_softmax(1)


def said(*strengths: float) -> MemberOutputs:
    labels = torch.arange(IMAGES) % CLASSES
    logs = torch.stack([member(strength, seed, labels) for seed, strength in enumerate(strengths)])
    features = tuple(torch.randn(IMAGES, 4, generator=torch.Generator().manual_seed(9)) for _ in strengths)
    return MemberOutputs(logs, features, labels)


def test_the_better_member_gets_the_greater_weight():
    (found,) = fitted(said(3.0, 0.1), ["weighted"], 0)
    first, second = found.combiner.weights((), 2).tolist()
    assert first > 0.7 and first + second == pytest.approx(1)


def test_members_that_are_alike_count_alike():
    found = {one.combiner.kind: one for one in fitted(said(1.5, 1.5, 1.5), KINDS, 0)}
    weights = found["weighted"].combiner.weights((), 3)
    assert weights.min() > 0.2
    assert found["mean"].combiner.weights((), 3).tolist() == pytest.approx([1 / 3] * 3)


def test_a_gate_finds_which_member_knows_which_images():
    """One member knows the images whose feature is positive, the other the rest."""
    about = said(0.0, 0.0)
    side = about.features[0][:, :1] > 0
    good = member(4.0, 5, about.labels)
    lost = good[:, [1, 2, 0]]
    logs = torch.stack([torch.where(side, good, lost), torch.where(side, lost, good)])
    features = (torch.cat([about.features[0][:, :1], about.features[0][:, :1]], dim=1), torch.zeros(IMAGES, 1))
    split = MemberOutputs(logs, features, about.labels)
    found = {one.combiner.kind: one for one in fitted(split, ["weighted", "gated"], 0)}
    assert found["gated"].loss < found["weighted"].loss - 0.05
    gate = found["gated"].combiner
    positive = tuple(each[side[:, 0]] for each in features)
    assert (
        gate.weights(positive, 2)[0] > 0.8 and gate.weights(tuple(each[~side[:, 0]] for each in features), 2)[1] > 0.8
    )


def test_a_logistic_regression_undoes_a_member_that_swaps_classes():
    about = said(0.0)
    honest = member(2.0, 1, about.labels)
    swapped = honest[:, [1, 0, 2]]
    both = MemberOutputs(torch.stack([swapped, swapped]), about.features * 2, about.labels)
    found = {k.combiner.kind: k for k in fitted(both,
                                                ["mean", "logistic"], 0)}  # fmt: skip
    assert found["logistic"].accuracy > found["mean"].accuracy + 0.3
    assert chosen_of(list(found.values())).combiner.kind == "logistic"


def test_the_simplest_is_taken_where_nothing_is_measurably_better():
    def way(kind: str, gain: float, noise: float) -> Fitted:
        losses = 1.0 - gain + noise * torch.randn(100, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return Fitted(Combiner(kind, {}, 1.0), None, losses, 0.5)

    mean = Fitted(Combiner("mean", {}, 1.0), None, torch.ones(100, dtype=torch.float64), 0.5)
    assert chosen_of([way("logistic", 0.01, 1.0), mean]).combiner.kind == "mean"
    assert chosen_of([way("logistic", 0.5, 1.0), mean]).combiner.kind == "logistic"


def test_the_simplest_that_no_other_beats_need_not_beat_a_simpler_one():
    """Weighted is not measurably better than mean; logistic is, but not better than weighted."""

    def way(kind: str, gains: torch.Tensor) -> Fitted:
        return Fitted(Combiner(kind, {}, 1.0), None, 1.0 - gains, 0.5)

    noise = torch.randn(100, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std()
    nothing = torch.zeros(100, dtype=torch.float64)
    mean, weighted = way("mean", nothing), way("weighted", 0.08 + noise.roll(50))
    logistic = way("logistic", 0.15 + noise)  # 1.5 standard errors over mean, about half of one over weighted
    assert chosen_of([mean, weighted]).combiner.kind == "mean"
    assert chosen_of([mean, weighted, logistic]).combiner.kind == "weighted"
    close = way("weighted", 0.08 + noise)  # logistic is better by 0.07 on every image
    assert chosen_of([mean, close, logistic]).combiner.kind == "logistic"


def test_what_comes_out_is_calibrated():
    """Members that are twice as sure as they should be, and cross-validation that sees it."""
    about = said(1.5, 1.5)
    hot = MemberOutputs((about.logs * 2).log_softmax(2), about.features, about.labels)
    assert best_temperature(hot.logs[0], hot.labels) == pytest.approx(
        2 * best_temperature(about.logs[0], about.labels), rel=0.01
    )
    (one,), (other,) = fitted(hot, ["mean"], 0), fitted(about, ["mean"], 0)
    assert torch.allclose(one.combiner.logs(hot.logs, ()), other.combiner.logs(about.logs, ()), atol=1e-3)
    assert best_temperature(one.combiner.logs(hot.logs, ()), hot.labels) == pytest.approx(1, abs=0.02)


def test_a_fit_is_the_same_twice_and_says_probabilities():
    for kind in KINDS:
        one, other = (fitted(said(2.0, 1.0), [kind], 4)[0] for _ in range(2))
        about = said(2.0, 1.0)
        logs = one.combiner.logs(about.logs, about.features)
        assert torch.equal(logs, other.combiner.logs(about.logs, about.features)), kind
        assert torch.allclose(logs.exp().sum(1), torch.ones(IMAGES, dtype=torch.float64))
        assert one.record()["kind"] == kind and 0 < one.accuracy <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_combiner_comes_back_from_its_file(kind, tmp_path):
    about = said(2.0, 1.0)
    (one,) = fitted(about, [kind], 0)
    kept = write_combiner(one.combiner, tmp_path / "stack.safetensors")
    back = read_combiner(tmp_path / "stack.safetensors", kind, 2, CLASSES)
    assert torch.equal(back.logs(about.logs, about.features), kept.logs(about.logs, about.features))
    assert torch.allclose(
        back.logs(about.logs, about.features), one.combiner.logs(about.logs, about.features), atol=1e-4
    )
    with pytest.raises(Exception, match="is damaged") as caught:
        read_combiner(tmp_path / "stack.safetensors", kind, 5, CLASSES)
    assert type(caught.value).__name__ == "RunError"


def test_calibration_of_members_is_each_members_own():
    about = said(1.0, 1.0)
    cool = calibrated(about.logs, torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert torch.allclose(cool[0], about.logs[0]) and not torch.allclose(cool[1], about.logs[1])


def test_a_contest_says_which_differences_are_noise():
    labels = torch.arange(200) % 2

    def entry(name: str, wrong: int) -> Entry:
        logs = torch.zeros(200, 2, dtype=torch.float64)
        logs[torch.arange(200), labels] = 1.0
        logs[:wrong] = logs[:wrong].flip(1)
        return Entry(name, "member", logs)

    entries = [entry("best", 20), entry("near", 22), entry("far", 90), entry("mean", 19)]
    found = contest(entries, labels, ["a", "b"], against=["best", "mean"], chosen="mean")
    assert [row["name"] for row in found["rows"]] == ["mean", "best", "near", "far"]
    assert [row["chosen"] for row in found["rows"]] == [True, False, False, False]
    pairs = {(pair["first"], pair["second"]): pair for pair in found["differences"]}
    assert set(pairs) == {("mean", "best"), ("near", "best"), ("far", "best"), ("near", "mean"), ("far", "mean")}
    assert pairs["near", "best"]["within_noise"] and not pairs["far", "best"]["within_noise"]
    assert pairs["far", "best"]["difference"] == pytest.approx(-0.35)
    assert all(pair["p_adjusted"] >= pair["p"] for pair in found["differences"])
