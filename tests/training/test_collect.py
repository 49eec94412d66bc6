from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from zoo.data import Batch
from zoo.tasks.outputs import Outputs
from zoo.tasks.schema import one_class
from zoo.tasks.scoring import scores_of
from zoo.tasks.single_label import measure, wilson
from zoo.training.collect import collect


def outputs(probabilities: list[list[float]], labels: list[int]) -> Outputs:
    return Outputs(torch.tensor(probabilities).log(), torch.tensor(labels))


def ids(count: int) -> list[str]:
    return [f"image {number}" for number in range(count)]


def test_a_result_worked_out_by_hand() -> None:
    said = outputs([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]], [0, 1, 1, 0])
    result = measure(said, ["cat", "dog"], ids(4))
    assert result["accuracy"] == 0.75 and result["n"] == 4 and result["top5"] == 1.0 and result["baseline"] == 0.5
    assert result["loss"] == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.7, 0.8))) / 4, abs=1e-6)
    assert result["confusion"] == [[2, 0], [1, 1]]
    assert result["classes"] == [
        {"name": "cat", "n": 2, "accuracy": 1.0},
        {"name": "dog", "n": 2, "accuracy": 0.5},
    ]
    assert result["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # Four occupied bins of one image each: |right - confidence| averaged.
    assert result["ece"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4, abs=1e-6)
    (mistake,) = result["mistakes"]
    assert mistake == {"id": "image 1", "label": "dog", "predicted": "cat", "probability": pytest.approx(0.6)}
    assert scores_of(one_class("ab"))(Outputs(said.logits, said.labels)) == {
        "accuracy": 0.75,
        "loss": pytest.approx(result["loss"], abs=1e-6),
        "refinement": pytest.approx(0.3544, abs=1e-3),  # twice as sure of itself
    }


def test_the_refinement_error_does_not_mind_how_sure_a_network_is() -> None:
    right, wrong = torch.tensor([[2.0, 0.0]] * 8 + [[0.0, 2.0]] * 2), torch.tensor([[2.0, 0.0]] * 7 + [[0.0, 2.0]] * 3)
    labels = torch.zeros(10, dtype=torch.long)
    scores = [
        scores_of(one_class("ab"))(Outputs(logits * sure, labels)) for logits in (right, wrong) for sure in (0.7, 1.4)
    ]
    assert scores[0]["refinement"] == pytest.approx(scores[1]["refinement"], abs=1e-3)
    assert scores[0]["refinement"] == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)), abs=1e-3)
    assert scores[1]["loss"] > scores[0]["loss"] and scores[2]["refinement"] > scores[0]["refinement"]


def test_a_class_without_images_is_scored_without_it() -> None:
    said = outputs([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], [0, 1])
    result = measure(said, ["a", "b", "c"], ids(2))
    assert result["macro_f1"] == 1.0 and result["accuracy"] == 1.0
    assert result["classes"][2] == {"name": "c", "n": 0, "accuracy": None}
    assert result["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_top5_counts_the_five_most_probable_of_seven() -> None:
    row = [0.28, 0.24, 0.18, 0.12, 0.08, 0.06, 0.04]
    result = measure(outputs([row, row, row], [0, 4, 5]), list("abcdefg"), ids(3))
    assert result["top5"] == pytest.approx(2 / 3) and result["accuracy"] == pytest.approx(1 / 3)


def test_mistakes_come_most_confident_first_and_are_few() -> None:
    shares = [0.5 + number / 100 for number in range(1, 31)]
    result = measure(outputs([[share, 1 - share] for share in shares], [1] * 30), ["a", "b"], ids(30))
    confident = [row["probability"] for row in result["mistakes"]]
    assert len(confident) == 24 and confident == sorted(confident, reverse=True)
    assert result["mistakes"][0]["id"] == "image 29"


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilson_gives_published_values(hits: int, count: int, low: float, high: float) -> None:
    assert wilson(hits, count) == pytest.approx((low, high), abs=1e-4)


class Shy(nn.Module):
    """Answers with what it is shown, negated while it trains."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return -flat if self.training else flat


def test_collect_restores_the_order_and_evaluates_in_eval_mode(tmp_path: Path) -> None:
    pixels = torch.arange(10.0).reshape(5, 2, 1, 1)
    labels = torch.tensor([0, 1, 0, 1, 0])
    batches = [Batch(pixels[part], labels[part], torch.tensor(part)) for part in ([3, 1], [4, 0], [2])]
    told: list[int] = []
    found = collect(Shy().train(), batches, Accelerator(cpu=True), mixed=False, on_batch=told.append)
    assert torch.equal(found.logits, pixels.flatten(1)) and torch.equal(found.labels, labels)
    assert told == [2, 4, 5] and found.positions.tolist() == [0, 1, 2, 3, 4]
    some = collect(Shy(), batches[::2], Accelerator(cpu=True), mixed=False)  # the middle one could not be read
    assert some.positions.tolist() == [1, 2, 3] and torch.equal(some.logits, pixels.flatten(1)[1:4])
