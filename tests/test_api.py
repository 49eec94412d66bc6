"""The public functions on real runs of a few steps."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config

import zoo
from tests.pictures import four, make_images
from zoo.errors import DataError, PluginError, RecipeError, RunError, TrainingError, ZooError
from zoo.events import EpochDone, Event, PlanReady, RunFinished, RunStarted, StepDone, tee
from zoo.models import saved
from zoo.recipes.recipe import Recipe
from zoo.runs.recipe_file import read_recipe
from zoo.runs.run_folder import Run

RECIPE = Recipe(
    strategy="lp-ft",
    probe_epochs=1,
    epochs=2,
    lr=3e-3,
    batch_size=8,
    image_size=32,
    precision="fp32",
    threads=1,
    augment="light",
    label_smoothing=0.0,
    cache="off",  # the same whatever else the machine does
)


@pytest.fixture(scope="module", autouse=True)
def imports_need_no_collecting() -> Iterator[None]:
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes in train, three of them in val and test."""
    some = {"amber": 3, "blue": 4, "red": 5}
    train = dict.fromkeys(("amber", "blue", "green", "red"), 10)
    return make_images(tmp_path_factory.mktemp("api") / "photos", {"train": train, "val": some, "test": some}, size=40)


@pytest.fixture(scope="module")
def run(photos: Path) -> Run:
    return zoo.adapt("resnet_nano", str(photos), RECIPE, out=photos.parent / "run")


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def looks_whole(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.json", "model.safetensors", "report.html"))


# --- a finished run ---


def test_a_run_folder_holds_what_its_contract_says(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {
        "README.md", "config.json", "metrics.jsonl", "model.safetensors", "report.html", "run.json",
        "verify.safetensors",
    }  # fmt: skip
    record = run.record
    assert record["status"] == "finished" and record["kind"] == "classifier" and record["seed"] == 0
    assert record["dataset"]["classes"] == ["amber", "blue", "green", "red"]
    assert record["resolved"]["weights"] == "tiny_imagenet" and record["resolved"]["threads"] == 1
    seconds = record["seconds"]
    assert seconds.keys() == {"setup", "data", "train", "data_wait", "total"}
    assert 0 < seconds["data"] <= seconds["setup"] and 0 < seconds["data_wait"] < seconds["train"]
    assert 0 < record["plan"]["data_wait"] < record["plan"]["seconds"]
    assert record["images_per_second"] == pytest.approx(3 * 40 / record["seconds"]["train"], rel=0.02)


def test_the_result_is_what_plain_timm_measures_on_the_folder(run: Run, photos: Path) -> None:
    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    classes = run.record["dataset"]["classes"]
    right, losses = 0, []
    for label, name in enumerate(classes):
        for path in sorted((photos / "test" / name).glob("*.png")) if (photos / "test" / name).exists() else []:
            with torch.no_grad():
                logits = model(transform(Image.open(path).convert("RGB"))[None])
            right += int(logits.argmax()) == label
            losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([label]))))
    assert len(losses) == run.result.n == 12
    assert run.result.accuracy == right / 12
    assert run.result.loss == pytest.approx(sum(losses) / 12, abs=1e-4)


def test_a_split_that_lacks_a_class_is_scored_over_the_others(run: Run) -> None:
    rows = {row["name"]: row for row in run.record["result"]["classes"]}
    assert rows["green"] == {"name": "green", "n": 0, "accuracy": None}
    assert len(run.record["result"]["confusion"]) == 4 and sum(row["n"] for row in rows.values()) == 12
    assert run.result.top5 == 1.0


def test_the_verification_file_is_reproduced_by_plain_timm(run: Run) -> None:
    kept = load_file(run.path / "verify.safetensors")
    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    raw = [Image.fromarray(kept[f"raw.{number:02d}"].numpy()) for number in range(12)]
    assert torch.equal(torch.stack([transform(image) for image in raw]), kept["inputs"])
    with torch.no_grad():
        torch.testing.assert_close(model(kept["inputs"]), kept["logits"], rtol=1e-4, atol=1e-5)


def test_evaluating_a_run_on_its_own_data_gives_its_result(run: Run, photos: Path) -> None:
    own = zoo.evaluate(run)
    for found in (own, zoo.evaluate(str(run.path), str(photos)), zoo.evaluate(run, split="test", batch_size=5)):
        assert found["accuracy"] == run.result.accuracy and found["n"] == 12 and found["split"] == "test"
        assert found["loss"] == pytest.approx(run.result.loss, abs=1e-5)
    assert own["selected_on"] == "val"
    assert zoo.evaluate(run, split="train")["n"] == 40


def test_evaluating_on_a_class_that_the_model_does_not_know_names_it(run: Run, tmp_path: Path) -> None:
    other = make_images(tmp_path / "other", {"amber": 2, "violet": 2})
    with pytest.raises(DataError) as caught:
        zoo.evaluate(run, str(other))
    assert "1 class(es) that training does not know: violet" in caught.value.what


def test_predicting_goes_on_after_an_unreadable_file(run: Run, photos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = [photos / "test" / "red" / f"{number:03d}.png" for number in range(3)]
    found = zoo.predict(run, [good[0], broken, *good[1:]], batch_size=2, top=9)
    assert [row.path for row in found] == [str(path) for path in (good[0], broken, *good[1:])]
    assert found[1].label is None and found[1].error and found[1].record().keys() == {"path", "error"}
    for row in (found[0], *found[2:]):
        assert row.error is None and len(row.top) == 4 and row.top[0] == (row.label, row.probability)
        assert sum(share for _, share in row.top) == pytest.approx(1, abs=1e-5)
    alone = zoo.predict(run, good[2], top=1)
    assert alone[0].probability == pytest.approx(found[3].probability, abs=1e-5) and len(alone[0].top) == 1


def test_a_predictor_opens_its_model_once_and_answers_as_predict_does(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [photos / "test" / "red" / f"{number:03d}.png" for number in range(3)]
    expected = zoo.predict(run, paths)
    opened = []
    load = saved.load
    monkeypatch.setattr(saved, "load", lambda *args: opened.append(args) or load(*args))
    predictor = zoo.Predictor(run)
    assert predictor.predict(paths) == expected and predictor.predict(paths) == expected
    assert len(opened) == 1 and predictor.classes == ("amber", "blue", "green", "red") and predictor.tasks == ()
    assert predictor.predict(paths[0]) == predictor.predict([str(paths[0])]) and predictor.predict([]) == []
    assert len(opened) == 1 and predictor.name == run.name


def test_a_predictor_takes_images_from_memory(run: Run, photos: Path) -> None:
    path = photos / "test" / "red" / "000.png"
    predictor = zoo.Predictor(run)
    (expected,) = predictor.predict(path)
    image = Image.open(path)
    given = [path.read_bytes(), image, np.asarray(image.convert("RGB")), b"no picture", np.zeros((4, 4)), 3]
    found = predictor.predict(given, batch_size=1)  # type: ignore[arg-type]
    assert [row.path for row in found] == [f"images[{place}]" for place in range(6)]
    assert all(row.top == expected.top for row in found[:3])
    for row, why in zip(found[3:], ("not an image in any", "not (4, 4) of float64", "not int"), strict=True):
        assert row.label is None and why in str(row.error)
    assert predictor.predict(image)[0].top == expected.top


def test_load_gives_a_model_with_its_transform_and_names(run: Run, photos: Path) -> None:
    model: Any = zoo.load(run)
    assert not model.training and model.class_names == ("amber", "blue", "green", "red")
    pixels = model.transform(Image.open(photos / "test" / "red" / "000.png").convert("RGB"))
    assert pixels.shape == (3, 32, 32) and model(pixels[None]).shape == (1, 4)


def test_a_backbone_can_be_used_with_its_own_head(photos: Path) -> None:
    model: Any = zoo.load("resnet_nano")
    assert len(model.class_names) == 200
    (row,) = zoo.predict("resnet_nano", [photos / "test" / "red" / "000.png"])
    assert len(row.top) == 5 and row.label in model.class_names
    with pytest.raises(DataError, match="class"):
        zoo.evaluate("resnet_nano", str(photos))
    with pytest.raises(RunError) as caught:
        zoo.evaluate("resnet_nano")
    assert caught.value.what == "resnet/resnet_nano has no data set of its own"


def test_what_is_neither_run_nor_backbone_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'resnet_nan' is neither a run nor a backbone"):
        zoo.predict("resnet_nan", [])
    with pytest.raises(RunError, match="is not a run folder"):
        zoo.predict(tmp_path, [])


def test_events_tell_the_whole_story(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    heard: list[Event] = []
    opened: list[RunStarted] = []
    tracked: dict[str, list[float]] = {}

    def track(event: Event) -> None:
        """As a tracker does: it opens at the start, and gets what is logged after the step that it is told."""
        if isinstance(event, RunStarted):
            opened.append(event)
        if isinstance(event, StepDone):
            assert event.step == opened[0].step + 1 + len(tracked.setdefault(opened[0].path, []))
            tracked[opened[0].path].append(event.loss)

    listener = tee(heard.append, track)
    again = zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "run", on_event=listener)
    assert [(event.path, event.step) for event in opened] == [(str(again.path), 0)]
    assert opened[0].recipe.batch_size == again.record["resolved"]["batch_size"] and len(tracked[str(again.path)]) == 15
    (ready,) = [event for event in heard if isinstance(event, PlanReady)]
    assert len([event for event in heard if isinstance(event, StepDone)]) == ready.plan.steps == 15
    assert len([event for event in heard if isinstance(event, EpochDone)]) == 3
    assert isinstance(heard[-1], RunFinished)
    assert zoo.plan("resnet_nano", str(photos), RECIPE).phases == ready.plan.phases
    assert same(weights(again), weights(run))


def test_another_thread_and_other_precisions_do_not_matter(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    half = zoo.adapt("resnet_nano", str(photos), replace(RECIPE, precision="bf16"), out=tmp_path / "half")
    assert half.record["resolved"]["precision"] == "bf16" and not same(weights(half), weights(run))
    found: list[Run] = []
    thread = threading.Thread(
        target=lambda: found.append(zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "full"))
    )
    thread.start()
    thread.join()
    assert same(weights(found[0]), weights(run))


def test_a_recipe_out_of_a_run_repeats_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    asked = read_recipe(run.record_path)
    assert (asked.recipe.precision, asked.recipe.norm, asked.recipe.select_by) == ("fp32", "fixed", "refinement")
    again = zoo.adapt(asked.backbone, asked.dataset, asked.recipe, out=tmp_path / "again")
    assert same(weights(again), weights(run)) and again.result == run.result


def test_a_tag_in_the_backbones_name_is_in_the_record(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError):  # offline: the tag's file cannot be had, and it is that tag's
        zoo.adapt("resnet18.tv_in1k", str(photos), RECIPE, out=tmp_path / "run")
    from zoo.training.autotune.decide import weights

    spec = zoo.get("resnet50.tv_in1k")
    made = [weights(zoo.Recipe(weights=asked), SimpleNamespace(weights=found)).changes
            for asked, found in (("default", spec.weights[0]), ("none", None))]  # fmt: skip
    assert made == [{"weights": "tv_in1k"}, {}]


@pytest.mark.parametrize("classes", [2, 7])
def test_few_and_many_classes(tmp_path: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    names = ("amber", "blue", "green", "red", "teal", "violet", "white")[:classes]
    data = make_images(tmp_path / "photos", dict.fromkeys(names, 10))
    recipe = replace(RECIPE, strategy="finetune", probe_epochs=None, epochs=1, balance="sampler", select_by="loss")
    run = zoo.adapt("resnet_nano", str(data), recipe, out=tmp_path / "run")
    assert len(run.record["result"]["classes"]) == classes
    assert run.result.accuracy <= run.result.top5 <= 1 and (run.result.top5 == 1) >= (classes == 2)
    assert run.result.selected_on == "val (cut from all images)"


def test_data_that_grew_since_is_not_scored_as_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    data = four(tmp_path / "photos", 8)
    recipe = replace(RECIPE, strategy="probe", probe_epochs=None, epochs=1)
    run = zoo.adapt("resnet_nano", str(data), recipe, out=tmp_path / "run")
    assert zoo.evaluate(run)["accuracy"] == run.result.accuracy
    for number in range(4):
        Image.new("RGB", (32, 32), (number, 9, 9)).save(data / "amber" / f"new-{number}.png")
    with pytest.raises(DataError) as caught:
        zoo.evaluate(run)
    assert caught.value.what == f"the data of {run.path} changed since it was trained"
    assert "images that it was trained on" in caught.value.why and "--dataset" in caught.value.fix


# --- what goes wrong ---


def test_a_loss_that_is_not_a_number_leaves_nothing_that_looks_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.training.losses.supervised import Supervised

    real, calls = Supervised.loss, []

    def spoiled(self: Supervised, *args: Any) -> torch.Tensor:
        calls.append(1)
        return real(self, *args) * (float("nan") if len(calls) == 8 else 1.0)

    monkeypatch.setattr(Supervised, "loss", spoiled)
    with pytest.raises(TrainingError) as caught:
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "run")
    assert caught.value.what == "the loss is nan at step 8 (phase finetune); nothing was updated by it"
    assert caught.value.why.count(".png") == 8
    assert Run(tmp_path / "run").record["status"] == "failed" and not looks_whole(tmp_path / "run")
    with pytest.raises(RunError, match=r"is not finished \(status: failed\)"):
        zoo.load(tmp_path / "run")


@pytest.mark.parametrize("place", ["metrics.jsonl", "step-", "best-", "model.safetensors", "verify", "report.html"])
def test_a_full_disk_is_one_message_and_leaves_nothing_that_looks_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "run"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real_open, real_fsync = Path.open, os.fsync

    def opened(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == place and args and args[0] == "a":
            raise full
        return real_open(self, *args, **kwargs)

    def synced(descriptor: int) -> None:
        if place in os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")):
            raise full
        real_fsync(descriptor)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    with pytest.raises(ZooError) as caught:
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=folder)
    assert caught.value.what.startswith(f"the disk is full: {folder}") and place in caught.value.what
    assert caught.value.why == "No space left on device" and "free some space" in caught.value.fix
    assert Run(folder).record["status"] == "failed" and not looks_whole(folder)
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    monkeypatch.undo()
    if place == "verify":  # trained, but not written up: going on measures and trains no step
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
        heard: list[Event] = []
        assert zoo.adapt(resume=folder, on_event=heard.append).finished
        assert not [event for event in heard if isinstance(event, StepDone)]


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out, why in ((tmp_path / "file" / "run", "it is not a folder"), (Path("/proc/nowhere/run"), "permission")):
        with pytest.raises(ZooError) as caught:
            zoo.adapt("resnet_nano", "no data needed", RECIPE, out=out)
        if out.parts[1] != "proc" or os.geteuid() != 0:
            assert caught.value.what.startswith(f"the run folder {out} cannot be made in ") and why in caught.value.why
    with pytest.raises(RunError) as caught:
        zoo.adapt("resnet_nano", "no data needed", RECIPE, out=tmp_path / "file")
    assert caught.value.what == f"{tmp_path / 'file'} is not a folder"


def test_a_used_folder_is_refused_and_an_empty_one_taken(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    with pytest.raises(RunError) as caught:
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=run.path)
    assert caught.value.what == f"{run.path} holds a run already"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="exists and is not empty"):
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    recipe = replace(RECIPE, strategy="probe", probe_epochs=None, epochs=1)
    assert zoo.adapt("resnet_nano", str(photos), recipe, out=tmp_path / "empty").finished


def test_names_that_are_missing_are_asked_for() -> None:
    with pytest.raises(RecipeError, match="a backbone and a data set must be named"):
        zoo.adapt()
    with pytest.raises(RecipeError, match="a data set must be named"):
        zoo.adapt("resnet_nano")
    with pytest.raises(RunError, match="somewhere is not a run folder"):
        zoo.adapt("resnet_nano", resume="somewhere")


@pytest.mark.parametrize("choice", [{"seeds": 5}, {"seeds": 3}, {"budget": "1m"}, {"dataset": "digits"}])
def test_a_resumed_comparison_takes_no_choice_that_would_be_ignored(choice: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a resumed comparison takes everything from its folder"):
        zoo.compare(resume=tmp_path, **choice)


def test_out_of_memory_says_what_to_change(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.training.losses.supervised import Supervised

    def hungry(self: Supervised, *args: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")

    monkeypatch.setattr(Supervised, "loss", hungry)
    with pytest.raises(TrainingError) as caught:
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "run")
    assert caught.value.what == "out of memory with batches of 8 images of 32 x 32 pixels"
    assert "--batch-size 4 --accumulate 2" in caught.value.fix
    assert Run(tmp_path / "run").record["status"] == "failed"


def test_a_bare_folder_name_means_the_same_from_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    monkeypatch.chdir(photos.parent)
    recipe = replace(RECIPE, strategy="probe", probe_epochs=None, epochs=1)
    first = zoo.adapt("resnet_nano", "photos", recipe, out=tmp_path / "one")
    assert first.record["dataset"]["ref"] == str(photos)
    monkeypatch.chdir(tmp_path)
    assert zoo.evaluate("one")["accuracy"] == first.result.accuracy
    shutil.copytree(first.path, tmp_path / "runs" / "named")
    assert zoo.evaluate("named")["accuracy"] == first.result.accuracy


def test_metrics_lines_are_plain_json(run: Run) -> None:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["event"] for line in lines].count("step") == 15
    step = next(line for line in lines if line["event"] == "step")
    assert step.keys() == {"event", "phase", "epoch", "step", "loss", "lr", "seconds"}
    epoch = next(line for line in lines if line["event"] == "epoch")
    assert epoch.keys() >= {
        "event", "phase", "epoch", "step", "train_loss", "val_loss", "val_accuracy", "seconds", "best",
    }  # fmt: skip
