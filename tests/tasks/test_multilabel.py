from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from zoo.tasks.multilabel import average_precision, choose_thresholds, known_loss, mean_ap, measure_labels

NAN = float("nan")


def outputs(count: int = 200, labels: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(count, labels, generator=generator) < torch.tensor([0.5, 0.3, 0.1, 0.05])[:labels]).float()
    return 2 * truth - 2 + torch.randn(count, labels, generator=generator), truth


def test_average_precision_is_scikit_learns():
    logits, truth = outputs()
    for scores in (logits, logits.round()):  # the second with many ties
        for label in range(4):
            expected = average_precision_score(truth[:, label], scores[:, label])
            found = average_precision(scores[:, label].double().numpy(), truth[:, label].double().numpy())
            assert found[0] == pytest.approx(expected, abs=1e-12)


def test_a_weight_counts_an_image_so_often():
    logits, truth = outputs(40, 1)
    scores, real = logits[:, 0].double().numpy(), truth[:, 0].double().numpy()
    times = np.random.default_rng(0).integers(0, 3, 40)
    weighted = average_precision(scores, real, times[None].astype(float))[0]
    assert weighted == pytest.approx(average_precision(scores.repeat(times), real.repeat(times))[0])


def test_a_threshold_is_where_f1_is_highest():
    logits, truth = outputs()
    probabilities = logits.double().sigmoid().numpy()
    for label, threshold in enumerate(choose_thresholds(logits, truth)):
        reached = f1_score(truth[:, label], probabilities[:, label] >= threshold)
        best = max(f1_score(truth[:, label], probabilities[:, label] >= each) for each in probabilities[:, label])
        assert reached == pytest.approx(best)


def test_a_rare_label_takes_the_threshold_of_all():
    logits, truth = outputs()
    truth[:, 3] = 0
    truth[:2, 3] = 1
    truth[:, 2] = 0
    first, *_, none, rare = choose_thresholds(logits, truth)
    assert rare == none != first, "two images are too few to choose by"


def test_the_result_is_what_scikit_learn_says():
    logits, truth = outputs()
    thresholds = [0.4, 0.3, 0.3, 0.5]
    result = measure_labels(logits, truth, ["a", "b", "c", "d"], thresholds, [str(i) for i in range(200)])
    given = (logits.double().sigmoid() >= torch.tensor(thresholds).double()).numpy()
    assert result["map"] == pytest.approx(average_precision_score(truth, logits))
    assert result["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    assert result["macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))
    assert result["accuracy"] == pytest.approx((given == truth.numpy()).all(1).mean())
    assert result["interval"][0] < result["map"] < result["interval"][1]
    assert result["baseline"] == pytest.approx(float(truth.mean(0).mean()))
    row = result["labels"][1]
    assert row["n"] == int(truth[:, 1].sum()) and row["threshold"] == 0.3
    first = result["mistakes"][0]
    image, said = int(first["id"]), first["predicted"].removeprefix("not ")
    label = "abcd".index(said)
    assert bool(truth[image, label]) == first["predicted"].startswith("not "), "a mistake is one"


def test_what_is_not_known_does_not_count():
    logits, truth = outputs()
    hidden = truth.clone()
    hidden[100:, 1] = NAN
    part = measure_labels(logits, hidden, list("abcd"), [0.5] * 4, [""] * 200)
    alone = measure_labels(logits[:100], truth[:100], list("abcd"), [0.5] * 4, [""] * 100)
    assert part["labels"][1] == alone["labels"][1]
    assert known_loss(logits[:, 1:2], hidden[:, 1:2]) == known_loss(logits[:100, 1:2], truth[:100, 1:2])
    truth[:, 0] = 0
    assert 0 < mean_ap(logits, truth) < 1, "a label that no image has is left out"
