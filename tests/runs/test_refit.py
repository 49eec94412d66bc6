"""A second training on all labelled images, up to the epoch that some of them chose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.pictures import four, make_images
from zoo.events import Event, Note, PhaseStarted, RunStarted, StepDone, ignore
from zoo.recipes.budget import Budget, fitted
from zoo.recipes.plan import Pace, Plan
from zoo.runs import refit
from zoo.runs.prepare import prepare
from zoo.runs.run_folder import Run
from zoo.training.autotune import price
from zoo.training.autotune.cost import Cost, Costs

RECIPE = zoo.Recipe(
    strategy="lp-ft", probe_epochs=2, epochs=3, image_size=32, batch_size=8, precision="bf16", threads=1, ema=0.8,
    cache="on", balance="weights", checkpoint_every="1 step", norm="fixed", recalibrate="off",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four(tmp_path_factory.mktemp("photos"), 14)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path_factory.mktemp("runs") / "whole")


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def test_the_second_training_ends_at_the_best_epoch_and_takes_all_labelled_images(whole: Run) -> None:
    record = whole.record
    counts, best = record["dataset"]["counts"], record["best"]
    labelled = counts["fit"]["n"] + counts["choose"]["n"]
    assert record["resolved"]["refit"] == "on" and record["refit"]["images"] == labelled > counts["fit"]["n"]
    why = "training is done twice, because there are fewer than 500 labelled images: "
    assert any(f"{why}first to find the best epoch, then up to it on all {labelled} labelled images" in note
               for note in record["plan"]["notes"])  # fmt: skip
    taken = record["refit"]["epochs"]
    expected = {"probe": best["epoch"]} if best["phase"] == "probe" else {"probe": 2, "finetune": best["epoch"]}
    assert taken == expected
    again = [line for line in lines(whole) if line["phase"].startswith("refit ")]
    assert {line["event"] for line in again} == {"step"}, "nothing chooses any more"
    each = max(1, labelled // RECIPE.batch)
    assert len(again) == each * sum(taken.values())
    steps = [line["step"] for line in lines(whole) if line["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert not whole.checkpoints.exists()
    assert record["seconds"]["train"] >= max(line["seconds"] for line in lines(whole)) > 0
    whiles = [line["seconds"] for line in lines(whole) if line["event"] == "step"]
    assert whiles == sorted(whiles), "the clock goes on"


def test_the_estimate_and_a_budget_count_both_trainings(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(plan: Plan, *_: Any, **__: Any) -> dict[str, Costs]:
        pace = Pace(3.0, once=2.0)
        return {each.name: Costs(Cost(pace.seconds(each.epochs), 1, 0.5, pace), None) for each in plan.phases}

    monkeypatch.setattr(price, "estimate", timed)
    recipe = zoo.Recipe(strategy="finetune", epochs=10, image_size=32, batch_size=8, cache="off", recalibrate="off")
    once, both = (
        prepare("resnet_nano", str(photos), replace(recipe, refit=choice), ignore) for choice in ("off", "on")
    )
    labelled = len(both.loaded.dataset.train) + len(both.loaded.dataset.val)
    times = 1 + labelled / len(both.loaded.dataset.train)
    assert once.plan.seconds == 32.0 and both.plan.seconds == pytest.approx(32.0 * times)
    assert once.plan.data_wait == 0.5 and both.plan.data_wait == pytest.approx(0.5 * times)
    half = Budget(seconds=16.0 * times)
    assert fitted(once.plan, recipe, half).epochs > fitted(both.plan, recipe, half).epochs == 4
    start = "training is done twice, as --refit on asks: first to find the best epoch, then up to it on all"
    (note,) = (note for note in both.plan.notes if note.startswith(start))
    assert note.endswith(f"{labelled} labelled images; the estimated time is that of both at the longest")


def test_the_first_training_is_as_without_and_another_model_is_saved(whole: Run, photos: Path) -> None:
    saved = load_file(whole.path / "model.safetensors")
    off = zoo.adapt("resnet_nano", str(photos), replace(RECIPE, refit="off"), out=whole.path.parent / "off")
    assert off.record["refit"] is None and off.record["best"] == whole.record["best"]
    assert any(not torch.equal(saved[name], value) for name, value in load_file(off.path / "model.safetensors").items())
    mine = lines(off)
    theirs = [line for line in lines(whole) if not line["phase"].startswith("refit ")]
    for line in (*mine, *theirs):
        line.pop("seconds")
    assert mine == theirs, "the first training is the same"


@pytest.mark.parametrize(
    "stopped_in",
    [pytest.param(phase, marks=pytest.mark.heavy) for phase in ("probe", "refit probe")] + ["refit finetune"],
)
def test_a_stopped_run_goes_on_to_the_same_end(whole: Run, photos: Path, tmp_path: Path, stopped_in: str) -> None:
    if stopped_in.removeprefix("refit ") not in whole.record["refit"]["epochs"]:
        pytest.skip("the best epoch came before")
    seen = [0]

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.phase == stopped_in:
            seen[0] += 1
            if seen[0] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "cut", on_event=stop)
    heard: list[Event] = []
    again = zoo.adapt(resume=tmp_path / "cut", on_event=heard.append)
    if stopped_in.startswith("refit"):
        phases = [event.phase for event in heard if isinstance(event, PhaseStarted)]
        assert phases and all(phase.startswith("refit ") for phase in phases), "the first training is not done again"
    (begun,) = [event for event in heard if isinstance(event, RunStarted)]
    first = next(event for event in heard if isinstance(event, StepDone))
    assert 0 < begun.step == first.step - 1 and heard.index(begun) < heard.index(first)
    assert not [event for event in heard if isinstance(event, Note) and "damaged" in event.text]
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [lines(run) for run in (again, whole)]
    for line in (*logs[0], *logs[1]):
        line.pop("seconds")
    assert logs[0] == logs[1]
    assert again.record["refit"] == whole.record["refit"] and again.record["best"] == whole.record["best"]


def setting(dataset: Path, **choices: Any) -> str:
    ready = prepare("resnet_nano", str(dataset), replace(RECIPE, **choices), ignore)
    assert (refit.start_of(ready.work.settled, ready.loaded.model) is not None) is (ready.work.settled.refit == "on")
    return ready.work.settled.refit


def test_images_that_a_person_set_aside_are_trained_on_only_if_asked_for(photos: Path, tmp_path: Path) -> None:
    assert setting(photos) == "on" and setting(photos, refit="off") == "off"
    split = dict.fromkeys(("amber", "blue"), 8)
    own = make_images(tmp_path, {"train": split, "val": split, "test": split})
    assert setting(own) == "off" and setting(own, refit="on") == "on"


def test_many_images_need_no_second_training(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.training.autotune.decide.FEW_LABELLED", 20)
    assert setting(photos) == "off" and setting(photos, refit="on") == "on"
