"""Training from cached features is training: the same weights, whatever happens to the files."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import zoo
from tests.runs.photos import CHOICES, make_photos
from zoo.base import cache
from zoo.data.batches.maker import Key
from zoo.errors import DataError, RecipeError, TrainingInterrupted
from zoo.events import CheckpointSaved, Event, Note, Progress, StepDone
from zoo.recipes.plan import CachePlan
from zoo.recipes.strategies import Phase
from zoo.runs import prepare
from zoo.runs.recipe_file import read_recipe
from zoo.runs.run_folder import Run
from zoo.training.autotune import price as costs
from zoo.training.autotune.cost import Cost, Costs
from zoo.training.autotune.use_cache import choose
from zoo.training.frozen_cache import feature_file
from zoo.training.frozen_cache.compute import FeatureCache
from zoo.training.frozen_cache.feature_file import CachedFeatures, Layout
from zoo.training.frozen_cache.parts import Cut
from zoo.training.frozen_cache.phase_data import Option, _CachedBatches

CUT = Cut("fc", "head", (3, 8, 8), (4,), {}, (), ())
LAYOUT = Layout((4,), "float32", False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


def adapt(photos: Path, out: Path, heard: list[Event] | None = None, **choices: Any) -> Run:
    recipe = zoo.Recipe(**{**CHOICES, **choices})
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


def fails(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
        {"balance": "sampler", "patience": 1},
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


def test_bfloat16_is_kept_as_bfloat16(tmp_path: Path, photos: Path) -> None:
    heard: list[Event] = []
    with_it = adapt(photos, tmp_path / "with", heard, cache="on", precision="bf16", epochs=1)
    whole = zoo.plan("resnet_nano", str(photos), zoo.Recipe(**{**CHOICES, "cache": "on"})).phases[0].cache
    assert whole and 2 * with_it.record["plan"]["phases"][0]["cache"]["bytes"] == whole.bytes and computed(heard)
    close(with_it, adapt(photos, tmp_path / "without", cache="off", precision="bf16", epochs=1), 0.03)


@pytest.mark.parametrize("fault", ["full", "fills", "damaged"])
def test_faults_never_change_the_result(
    tmp_path: Path, photos: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = adapt(photos, tmp_path / "expected", cache="on", epochs=1)
    heard: list[Event] = []
    if fault != "damaged":
        cache.clear()
        if fault == "full":
            monkeypatch.setattr(feature_file, "RESERVE", 1 << 60)
        else:
            monkeypatch.setattr(feature_file, "RowWriter", type("Full", (feature_file.RowWriter,), {"append": fails}))
        found = adapt(photos, tmp_path / "found", heard, cache="on", epochs=1, cache_ram_gb=0)
        notes = [event.text for event in heard if isinstance(event, Note)]
        why = "the disk is nearly full" if fault == "full" else os.strerror(errno.ENOSPC)
        assert f"partial: features are not cached: {why}" in notes
        close(found, expected)
        assert not [entry for entry in cache.stored() if entry.kind != "images"]
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
            os.kill(os.getpid(), signal.SIGINT)

    recipe = zoo.Recipe(**{**CHOICES, **choices})
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
    again = read_recipe(first.path).recipe
    assert again.cache == first.record["resolved"]["cache"] != "auto"


def test_auto_is_a_matter_of_the_estimate_and_settled_once() -> None:
    recipe = zoo.Recipe()
    accelerator = Accelerator(cpu=True)
    option = Option(CUT, LAYOUT, CachePlan("head", "fc", 4, 100 * LAYOUT.row_bytes), missing=100)
    there = replace(option, missing=0)
    found = {"slow": option, "close": option, "little": option, "quick": there}
    costs = {
        "slow": Costs(Cost(10.0, 1), Cost(12.0, 1)),
        "close": Costs(Cost(100.0, 1), Cost(95.0, 1)),  # less than an estimate errs by
        "little": Costs(Cost(1.2, 1), Cost(0.4, 1)),  # nobody fills a disk for less than a second
        "quick": Costs(Cost(300.0, 1), Cost(40.0, 1)),
    }
    choice = choose(found, {"all": "the first group trains"}, costs, recipe, accelerator)
    assert choice.options == {"quick": there} and choice.setting == "quick"
    assert choice.reasons == {
        "all": "the first group trains",
        "slow": "to compute them first would take longer",
        "close": "it would save too little",
        "little": "it would save too little",
        "quick": "saves about 4 min of 5 min, all of it on the disk already",
    }
    asked = choose(found, {}, costs, replace(recipe, cache="on"), accelerator)
    assert asked.setting == "on" and asked.reasons["slow"] == "asked for"
    resumed = choose({"quick": option}, {}, None, recipe, accelerator)
    assert resumed.setting == "on" and resumed.reasons["quick"] == "as when the run started"
    assert choose({}, {}, {}, recipe, accelerator).setting == "off"


def test_the_estimate_counts_only_what_is_not_there_yet(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[str, float] = {}
    real = costs.estimate

    def estimate(*arguments: Any, **named: Any) -> dict[str, Costs]:
        monkeypatch.setattr("zoo.training.autotune.cost._forward_seconds", lambda *_rest: 1.0)
        monkeypatch.setattr("zoo.training.autotune.cost._measure", lambda *_rest, **_named: (0.0, 0))
        found = real(*arguments, **{**named, "seconds_per_image": 0.5})
        seconds.update({name: each.cached.seconds for name, each in found.items() if each.cached})
        return found

    monkeypatch.setattr(costs, "estimate", estimate)
    recipe = zoo.Recipe(**{**CHOICES, "cache": "on", "augment": "light", "cache_views": 2, "epochs": 2})
    scored = 2 * 12  # each of them takes a second from the split on, too
    zoo.plan("resnet_nano", str(photos), recipe)
    assert seconds["partial"] == pytest.approx((2 * 33 + 12) * 1.5 + scored, abs=0.01)
    ready = prepare.prepare("resnet_nano", str(photos), recipe, [].append)
    option = ready.caches["partial"]
    FeatureCache(ready.loaded, ready.work, option.cut, option.layout, ready.plan.phases[0].frozen, range(1)).load(
        True, [].append, lambda: None
    )
    plan = zoo.plan("resnet_nano", str(photos), recipe)
    assert seconds["partial"] == pytest.approx(33 * 1.5 + scored, abs=0.01)
    assert plan.phases[0].cache_reason == "asked for, some of it on the disk already"


def test_epochs_take_the_kept_views_in_turn() -> None:
    count, views = 6, 2
    rows = [np.array([[10 * view + place] for place in range(count)], dtype=np.float32).view(np.uint8)
            for view in range(views)]  # fmt: skip
    present = np.arange(count) != 4  # could not be read
    shelf = _CachedBatches(
        [CachedFeatures(each, present, Layout((1,), "float32", False)) for each in rows], 3, torch.arange(count)
    )

    def told(*keys: tuple[int, int, int]) -> tuple[list[float], list[int]]:
        batch = shelf.batch([Key(*key) for key in keys])
        assert batch.indices.tolist() == batch.labels.tolist()
        return batch.images.flatten().tolist(), batch.labels.tolist()

    assert told((3, 0, 0), (3, 5, 0)) == ([0.0, 5.0], [0, 5])
    assert told((4, 0, 0), (4, 4, 0), (4, 5, 0)) == ([10.0, 15.0], [0, 5])
    assert told((5, 1, 0), (5, 1, 1), (5, 1, 2)) == ([1.0, 11.0, 1.0], [1, 1, 1]), "drawn again: in the next view"
    with pytest.raises(DataError, match="no image of a batch can be read"):
        told((5, 4, 0))


def test_mixup_mixes_activations_and_leaves_the_kept_ones_alone(tmp_path: Path, photos: Path) -> None:
    heard: list[Event] = []
    first = adapt(photos, tmp_path / "first", heard, cache="on", mixup=0.4, strategy="probe", lr=0.03)
    assert computed(heard)
    losses = [event.loss for event in heard if isinstance(event, StepDone)]
    assert losses[-1] < losses[0]
    heard.clear()
    assert equal(adapt(photos, tmp_path / "second", heard, cache="on", mixup=0.4, strategy="probe", lr=0.03), first)
    assert not computed(heard)


def test_why_nothing_is_kept_is_said(photos: Path) -> None:
    def reason(**choices: Any) -> str:
        plan = zoo.plan("resnet_nano", str(photos), zoo.Recipe(**{**CHOICES, "cache": "on", **choices}))
        phase = plan.phases[-1]
        assert (phase.cache is None) == (f"no features are cached: {phase.cache_reason}" in str(plan))
        return phase.cache_reason

    def views(**choices: Any) -> int:
        plan = zoo.plan("resnet_nano", str(photos), zoo.Recipe(**{**CHOICES, "cache": "on", **choices}))
        assert plan.phases[-1].cache is not None
        return plan.phases[-1].cache.views

    assert reason(cutmix=0.5) == "CutMix needs pixels"
    assert reason(cache_gb=0, cache_ram_gb=0) == "they would take 0.0 GB; see --cache-gb"
    assert reason(strategy="finetune") == "the first group trains"
    assert reason(strategy="lp-ft", cache="probe") == "the first group trains"
    assert reason(cache="off") == "--cache off"
    assert reason() == "asked for"
    late = {"phases": (Phase("all", 1, 1e-3, "all"), Phase("top", 1, 1e-3, "head")), "epochs": None, "lr": None}
    assert reason(**late) == "asked for" and "(--ema) still follows what earlier" in reason(**late, ema=0.9)
    assert reason(ema=0.9) == "asked for", "where nothing below has trained, the average's body is the network's"
    assert views(augment="light", epochs=9) == 4 and views(augment="light") == 3 and views(epochs=9) == 1
    assert views(augment="light", epochs=9, strategy="probe", cache_views=6) == 6
    with pytest.raises(RecipeError, match="there is no phase named warm to cache features for"):
        reason(cache="warm")
