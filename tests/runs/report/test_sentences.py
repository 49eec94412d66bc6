from __future__ import annotations

from typing import Any

import pytest

from tests.runs.report.fixture import FLOWERS, record
from zoo.runs.report import sentences


@pytest.mark.parametrize(
    ("seconds", "share"),
    [({"train": 50.0, "data_wait": 2.5}, 0.05), ({"train": 50.0}, None), ({"train": 0.0, "data_wait": 0.0}, None)],
)
def test_the_share_of_waiting_is_known_where_it_was_measured(seconds: dict[str, float], share: float | None) -> None:
    assert sentences.waited({"seconds": seconds}) == share
    assert sentences.waited({}) is None


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
    assert found == ["Not measurably better than always guessing the commonest class, which scores 10.0%."]


def test_choosing_and_reporting_on_the_same_images() -> None:
    assert "so the accuracy is optimistic" in sentences.caveats(made(selected_on="test"))[0]


def test_classes_without_images_are_named() -> None:
    run = made()
    for entry in run["result"]["classes"][:5]:
        entry["n"] = 0
    assert sentences.caveats(run) == ["No measured image has one of these classes: daisy, dandelion, iris and 2 more."]


def test_unequal_classes() -> None:
    run = made()
    run["dataset"]["counts"]["fit"]["per_class"] = [1] + [40] * 9
    assert "the smallest has 1 image, the largest 40" in sentences.caveats(run)[0]


@pytest.mark.parametrize(("confidence", "text"), [(0.95, "20 points too high"), (0.55, "20 points too low")])
def test_wrong_probabilities(confidence: float, text: str) -> None:
    bins = [{"lower": 0.5, "upper": 1.0, "n": 400, "confidence": confidence, "accuracy": 0.75}]
    assert text in sentences.caveats(made(calibration=bins))[0]
