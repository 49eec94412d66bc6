from __future__ import annotations

from typing import Any

import pytest

from tests.runs.report.fixture import FLOWERS, record
from zoo.runs.report import sentences


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.934, "93.4%"),
        (1.0, "100.0%"),
        (0.9996, "99.9%"),
        (0.0, "0.0%"),
        (None, sentences.DASH),
        (float("nan"), sentences.DASH),
    ],
)
def test_percent(share: Any, text: str) -> None:
    assert sentences.percent(share) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.08, "0.080"), (0.001, "0.001"), (0.00099, "< 0.001"), (0.0, "< 0.001"), (None, sentences.DASH)]
)
def test_a_p_value_is_never_shown_as_0(p: Any, text: str) -> None:
    assert sentences.p_value(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.96, "1 min 00 s"),
        (72, "1 min 12 s"),
        (7500, "2 h 05 min"),
        (None, sentences.DASH),
    ],
)
def test_duration(seconds: Any, text: str) -> None:
    assert sentences.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "share"),
    [({"train": 50.0, "data_wait": 2.5}, 0.05), ({"train": 50.0}, None), ({"train": 0.0, "data_wait": 0.0}, None)],
)
def test_the_share_of_waiting_is_known_where_it_was_measured(seconds: dict[str, float], share: float | None) -> None:
    assert sentences.waited({"seconds": seconds}) == share
    assert sentences.waited({}) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (3.125e-5, "3.1e-5"), (5e-4, "5e-4"), (0, "0"), (1, "1")]
)
def test_rate(value: float, text: str) -> None:
    assert sentences.rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(25_557_032, "25.6 M"), (999_999, "1 M"), (512, "512"), (2_570, "2.57 k")])
def test_compact(value: float, text: str) -> None:
    assert sentences.compact(value) == text


def test_trained_parameters_count_groups_that_trained_up_to_the_best_epoch() -> None:
    plan = {"phases": [{"name": "probe", "groups": [{"name": "stem", "params": 10, "frozen": True},
                                                    {"name": "head", "params": 3, "frozen": False}]}]}  # fmt: skip
    assert sentences.trained_parameters({"plan": plan}) == (3, 13)
    plan["phases"].append({"name": "finetune", "groups": [{"name": "stem", "params": 10, "frozen": False}]})
    assert sentences.trained_parameters({"plan": plan}) == (13, 13)
    assert sentences.trained_parameters({"plan": plan, "best": {"phase": "finetune"}}) == (13, 13)
    assert sentences.trained_parameters({"plan": plan, "best": {"phase": "probe"}}) == (3, 13)
    assert sentences.trained_parameters({}) is None
    assert sentences.trained_parameters({"plan": {"phases": [{"groups": [{"params": 5}]}]}}) == (5, 5)


def made(**result: Any) -> dict[str, Any]:
    run = record(FLOWERS, 40, 0.9, "finished", 4, "run")
    run["dataset"]["bad"] = []
    run["result"].update(result)
    return run


def test_a_sound_result_has_no_caveats() -> None:
    assert sentences.caveats(made()) == []


def test_no_better_than_guessing() -> None:
    found = sentences.caveats(made(interval=[0.08, 0.13]))
    assert found == ["Not measurably better than always guessing the commonest class, which is right for 10.0%."]


def test_choosing_and_reporting_on_the_same_images() -> None:
    assert "so the accuracy is optimistic" in sentences.caveats(made(selected_on="test"))[0]


def test_classes_without_images_are_named() -> None:
    run = made()
    for entry in run["result"]["classes"][:5]:
        entry["n"] = 0
    assert sentences.caveats(run) == ["No image of these classes was measured: daisy, dandelion, iris and 2 more."]


def test_unequal_classes() -> None:
    run = made()
    run["dataset"]["counts"]["fit"]["per_class"] = [1] + [40] * 9
    assert "the smallest has 1 image, the largest 40" in sentences.caveats(run)[0]


@pytest.mark.parametrize(("confidence", "text"), [(0.95, "20 points higher"), (0.55, "20 points lower")])
def test_wrong_probabilities(confidence: float, text: str) -> None:
    bins = [{"lower": 0.5, "upper": 1.0, "n": 400, "confidence": confidence, "accuracy": 0.75}]
    assert text in sentences.caveats(made(calibration=bins))[0]
