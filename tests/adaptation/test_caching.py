"""Training from kept activations is training: the same weights, whatever happens to the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.pictures import make_images
from zoo import cache
from zoo.engine import activations
from zoo.engine.events import CheckpointSaved, Event, Note, Progress, StepDone
from zoo.errors import RecipeError, TrainingInterrupted
from zoo.run import Run

COMMON: dict[str, Any] = {"strategy": "partial", "epochs": 3, "lr": 0.003, "image_size": 32, "threads": 1,
                          "precision": "fp32", "batch_size": 8, "augment": "none"}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = {"amber": 13, "blue": 9, "green": 11}
    split = dict.fromkeys(train, 4)
    return make_images(tmp_path_factory.mktemp("photos") / "photos", {"train": train, "val": split, "test": split})


def adapt(photos: Path, out: Path, heard: list[Event] | None = None, **choices: Any) -> Run:
    recipe = zoo.Recipe(**{**COMMON, **choices})
    return zoo.adapt("resnet_nano", str(photos), recipe, out=out, on_event=[].append if heard is None else heard.append)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


def close(left: Run, right: Run, tolerance: float = 2e-3) -> None:
    other = weights(right)
    for name, tensor in weights(left).items():
        torch.testing.assert_close(tensor, other[name], rtol=tolerance, atol=tolerance, msg=name)


def equal(left: Run, right: Run) -> bool:
    other = weights(right)
    return all(torch.equal(tensor, other[name]) for name, tensor in weights(left).items())


def computed(heard: list[Event]) -> int:
    return sum(isinstance(event, Progress) and event.stage.startswith("computing activations") for event in heard)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"strategy": "probe"},
        {"augment": "light", "cache_views": 3},
        {"ema": 0.8, "balance": "weights", "accumulate": 2},
        {"dropout": 0.3, "strategy": "probe"},
    ],
    ids=str,
)
def test_kept_or_not_the_weights_are_the_same(tmp_path: Path, photos: Path, choices: dict[str, Any]) -> None:
    heard: list[Event] = []
    with_it = adapt(photos, tmp_path / "with", heard, cache="on", **choices)
    without = adapt(photos, tmp_path / "without", cache="off", **choices)
    assert with_it.record["plan"]["phases"][-1]["cache"] and computed(heard)
    assert without.record["plan"]["phases"][-1]["cache"] is None
    close(with_it, without)
    assert with_it.record["resolved"]["cache"] == "on" and without.record["resolved"]["cache"] == "off"


def test_a_second_recipe_computes_nothing_again_and_other_images_do(tmp_path: Path, photos: Path) -> None:
    adapt(photos, tmp_path / "one", cache="on")
    heard: list[Event] = []
    adapt(photos, tmp_path / "two", heard, cache="on", lr=0.001, epochs=2)
    assert not computed(heard)
    adapt(photos, tmp_path / "three", heard, cache="on", limit=24, epochs=1)
    assert computed(heard)


@pytest.mark.parametrize("fault", ["full", "damaged"])
def test_faults_never_change_the_result(
    tmp_path: Path, photos: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = adapt(photos, tmp_path / "expected", cache="on", epochs=1)
    heard: list[Event] = []
    if fault == "full":
        cache.clear()
        monkeypatch.setattr(activations, "RESERVE", 1 << 60)
        found = adapt(photos, tmp_path / "found", heard, cache="on", epochs=1, cache_ram_gb=0)
        notes = [event.text for event in heard if isinstance(event, Note)]
        assert "partial: no activations are kept: the disk is nearly full" in notes
        close(found, expected)
        return
    for entry in cache.stored():
        if entry.kind == "activations":
            data = bytearray(entry.path.read_bytes())
            data[len(data) // 2] ^= 64
            entry.path.write_bytes(data)
    found = adapt(photos, tmp_path / "found", heard, cache="on", epochs=1)
    assert computed(heard) and equal(found, expected)


@pytest.mark.parametrize("removed", [False, True])
def test_an_interrupted_run_ends_as_if_nothing_had_happened(tmp_path: Path, photos: Path, removed: bool) -> None:
    choices = {"cache": "on", "augment": "light", "cache_views": 2, "mixup": 0.2}
    expected = adapt(photos, tmp_path / "expected", **choices)
    cache.clear()

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    recipe = zoo.Recipe(**{**COMMON, **choices})
    saved: list[Event] = []
    with pytest.raises(TrainingInterrupted):
        zoo.adapt(
            "resnet_nano", str(photos), recipe, out=tmp_path / "run", on_event=lambda e: (saved.append(e), stop(e))
        )
    assert any(isinstance(event, CheckpointSaved) for event in saved)
    if removed:
        cache.clear()
    run = zoo.adapt(resume=tmp_path / "run")
    assert equal(run, expected)
    lines = [
        [json.loads(line) for line in (one.path / "metrics.jsonl").read_text().splitlines()] for one in (run, expected)
    ]
    assert [line.get("loss") for line in lines[0]] == [line.get("loss") for line in lines[1]]


def test_a_runs_record_repeats_its_choices(tmp_path: Path, photos: Path) -> None:
    first = adapt(photos, tmp_path / "first", cache="auto")
    again = zoo.recipe.read_recipe(first.path).recipe
    assert again.cache == first.record["resolved"]["cache"] != "auto" and again.cache_views == 1


def test_why_nothing_is_kept_is_said(photos: Path) -> None:
    def reason(**choices: Any) -> str:
        plan = zoo.plan("resnet_nano", str(photos), zoo.Recipe(**{**COMMON, "cache": "on", **choices}))
        phase = plan.phases[-1]
        assert (phase.cache is None) == (f"no activations are kept: {phase.cache_reason}" in str(plan))
        return phase.cache_reason

    assert reason(cutmix=0.5) == "CutMix needs pixels"
    assert reason(cache_gb=0, cache_ram_gb=0) == "they would take 0.0 GB; see --cache-gb"
    assert reason(strategy="finetune") == "the first group trains"
    assert reason(strategy="lp-ft", cache="probe") == "the first group trains"
    assert reason(cache="off") == "--cache off"
    assert reason() == "asked for"
    with pytest.raises(RecipeError, match="there is no phase named warm to keep activations for"):
        reason(cache="warm")
