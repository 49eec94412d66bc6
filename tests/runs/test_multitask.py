"""Several tasks, from columns to a published head."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import zoo
from zoo.data.targets import draw_weights
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import StepDone
from zoo.models.tensor_files import file_sha256
from zoo.runs import reproduce
from zoo.runs.extract_task import one_task
from zoo.runs.publish import contents
from zoo.runs.recipe_file import recipe_of_run

BASE = zoo.Recipe(
    strategy="finetune", epochs=3, lr=3e-3, batch_size=16, image_size=32, precision="fp32", threads=1, augment="none",
    cache="off", refit="off", label_separator="+",
)  # fmt: skip
NAMES = ("colour", "light", "level", "tags")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a colour and a brightness, which one in seven does not say."""
    root = tmp_path_factory.mktemp("tasks")
    lines = ["path,colour,light,level,tags,split"]
    for number in range(112):
        light = 40 + 30 * (number % 7)
        colour = number % 3
        pixels = np.random.default_rng(number).integers(0, 30, (36, 36, 3), dtype=np.uint8)
        pixels[:, :, colour] = np.minimum(255, pixels[:, :, colour].astype(int) + light)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
        split = ("train", "train", "train", "train", "train", "val", "test")[number // 16]
        tags = "+".join(name for name, there in (("bright", light > 130), ("red", colour == 0)) if there)
        said = ("red", "green", "blue")[colour] if number % 7 else ""
        lines.append(f"{number:03d}.png,{said},{light / 100},{'low' if light < 100 else 'high'},{tags},{split}")
    path = root / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe_for(table: Path, **changes: Any) -> zoo.Recipe:
    columns = ("colour", "light", "level:low<high", "tags")
    tasks = tuple(f"{name}={table}:{column}" for name, column in zip(NAMES, columns, strict=True))
    return replace(BASE, tasks=tasks, **changes)


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    return zoo.adapt("resnet_nano", str(table), recipe_for(table), out=tmp_path_factory.mktemp("runs") / "run")


def test_every_task_is_learnt_and_measured(run):
    record, result = run.record, run.result
    assert record["kind"] == "multitask" and result.problem == "multi-task" and set(result.tasks) == set(NAMES)
    assert [each.problem for each in result.tasks.values()] == ["single-label", "regression", "ordinal", "multi-label"]
    assert result.tasks["colour"].accuracy > 0.8 and result.tasks["colour"].n == 14, "who does not say does not count"
    assert result.tasks["light"].r2 > 0.3 and result.tasks["level"].kappa > 0.3 and result.tasks["tags"].map > 0.7
    worth = [result.tasks["colour"].accuracy, result.tasks["light"].r2, result.tasks["level"].kappa,
             result.tasks["tags"].map]  # fmt: skip
    assert result.score == pytest.approx(np.mean(worth))
    assert record["resolved"]["select_by"] == "score"
    assert record["resolved"]["label_smoothing"] is None, "the default for classes, and nothing for labels"
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert all(set(line["parts"]) == set(NAMES) for line in steps)
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert all(next(iter(line["values"])) == "score" for line in epochs)
    assert record["best"]["score"] == max(line["values"]["score"] for line in epochs)


def test_it_is_an_ordinary_timm_model_that_speaks_in_its_own_units(run, table):
    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    assert model.num_classes == 3 + 1 + 1 + 2
    assert model.pretrained_cfg["label_names"][3:5] == ["light", "level: above low"]
    path = table.parent / "096.png"
    with torch.inference_mode():
        (outputs,) = model(zoo.load(run).transform(Image.open(path))[None])
    (prediction,) = zoo.predict(run, [path])
    assert prediction.tasks["light"].value == pytest.approx(float(outputs[3]), abs=1e-4)
    assert 0 < prediction.tasks["light"].value < 3, "a hundredth of the brightness"
    assert set(prediction.record()["tasks"]) == set(NAMES)
    assert prediction.record()["tasks"]["level"]["label"] in ("low", "high")
    assert set(prediction.record()["tasks"]["tags"]) == {"labels", "top"}


def test_scoring_again_says_the_same(run, table):
    again = zoo.evaluate(run)
    assert again["score"] == pytest.approx(run.result.score)
    given = zoo.evaluate(run, str(table), split="test")
    assert given["tasks"]["light"]["mae"] == pytest.approx(run.result.tasks["light"].mae)
    assert given["tasks"]["tags"]["labels"] == run.record["result"]["tasks"]["tags"]["labels"]


def test_card_and_report_say_what_each_task_is(run, table):
    card, page = (run.path / "README.md").read_text(), run.report.read_text()
    for name in NAMES:
        assert f"### {name}" in card
    assert "for 4 tasks: colour, light, level, tags" in card
    assert str(table.parent) not in card and "&#124;" not in card
    assert '<section id="tasks"' in page and "Loss of each task" in page and "mean score" in page


@pytest.mark.parametrize("name", NAMES)
def test_one_task_is_pushed_as_an_ordinary_model(run, name, tmp_path, table):
    zoo.push(run, "me/one", task=name, dry_run=tmp_path / name)
    whole = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    model = timm.create_model(f"local-dir:{tmp_path / name}", pretrained=True).eval()
    start = {"colour": 0, "light": 3, "level": 4, "tags": 5}[name]
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(model(images), whole(images)[:, start : start + model.num_classes], atol=1e-5)
    config = json.loads((tmp_path / name / "config.json").read_text())
    record = json.loads((tmp_path / name / "zoo.json").read_text())
    assert ("tasks" in config["zoo"]) == (name != "colour"), "one of classes is an ordinary classifier"
    assert record["kind"] == "classifier" and record["dataset"]["classes"] == config["label_names"]
    assert str(table.parent) not in json.dumps(record)


def test_a_task_that_there_is_not_cannot_be_pushed(run, tmp_path):
    with pytest.raises(RunError) as caught:
        zoo.push(run, "me/one", task="weight", dry_run=tmp_path / "out")
    assert "has no task 'weight'" in caught.value.what and "colour, light, level, tags" in caught.value.why
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weighting", ["uncertainty", "pcgrad"])
def test_a_resumed_run_ends_the_same(table, tmp_path, weighting, monkeypatch):
    recipe = recipe_for(table, task_weighting=weighting, epochs=2, checkpoint_every="2 steps")
    whole = zoo.adapt("resnet_nano", str(table), recipe, out=tmp_path / "whole")

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(table), recipe, out=tmp_path / "cut", on_event=stop)
    monkeypatch.chdir(table.parent)
    near = replace(recipe, workers=0, tasks=tuple(task.replace(f"{table.parent}/", "") for task in recipe.tasks))
    resumed = zoo.adapt(resume=tmp_path / "cut", recipe=near)
    assert file_sha256(whole.path / "model.safetensors") == file_sha256(resumed.path / "model.safetensors")
    assert whole.record["result"] == resumed.record["result"]
    if weighting == "uncertainty":
        assert whole.record["plan"]["phases"][0]["extra"]["params"] == 4
        last = json.loads(whole.metrics_path.read_text().splitlines()[-2])
        assert last["parts"]["weight of colour"] != 1.0


def test_kept_activations_and_a_second_training_go_with_tasks(table, tmp_path):
    cut = table.parent / "cut.csv"
    cut.write_text(table.read_text().replace(",val\n", ",train\n"))
    recipe = recipe_for(cut, strategy="probe", epochs=1, cache="on", refit="on", task_weighting="pcgrad")
    run = zoo.adapt("resnet_nano", str(cut), recipe, out=tmp_path / "run")
    assert run.record["plan"]["phases"][0]["cache"] and run.record["refit"]["images"] == 96
    assert set(run.result.tasks) == set(NAMES)


def test_two_data_sets_make_one_model(table, tmp_path, monkeypatch):
    """Digits are 8 x 8 pixels and know nothing of colours."""
    tasks = (f"colour={table}:colour", "digit=digits")
    recipe = replace(BASE, tasks=tasks, epochs=1, limit=200, task_temperature=0.5, label_separator=None)
    asked = []
    monkeypatch.setattr(
        "zoo.data.batches.loader.draw_weights", lambda *drawn: asked.append(drawn[2]) or draw_weights(*drawn)
    )
    run = zoo.adapt("resnet_nano", recipe=recipe, dataset=str(table), out=tmp_path / "run")
    assert set(asked) == {0.5}
    counts = run.record["dataset"]["counts"]
    assert counts["fit"]["answers"] == {"colour": 68, "digit": 160}, "of each at most 200, those to choose by included"
    assert run.record["dataset"]["name"] == "t+digits" and set(run.result.tasks) == {"colour", "digit"}
    assert run.result.tasks["digit"].n == 360 and run.result.tasks["colour"].n == 14
    with pytest.raises(RunError, match="several data sets"):
        zoo.evaluate(run, split="test")
    assert run.record["dataset"]["hub"] is None and "- digit: digits" in (run.path / "README.md").read_text()
    zoo.push(run, "me/digit", task="digit", dry_run=tmp_path / "digit")
    alone = json.loads((tmp_path / "digit" / "zoo.json").read_text())
    about = {key: alone["dataset"][key] for key in ("ref", "name", "reported_on")}
    assert about == {"ref": "digits", "name": "digits", "reported_on": "test"}
    assert [part["n"] for part in alone["dataset"]["counts"].values()] == [160, 40, 360]
    assert alone["result"]["split"] == "test" and "sets" not in alone["dataset"]
    whole = contents.public_record(run.record)
    assert [one["ref"] for one in whole["dataset"]["sets"]] == [None, "digits"]
    for record, dataset, said in ((alone, "x.csv", "is one task of a run"), (whole, None, "several data sets"),
                                  (run.record, "x.csv", "several data sets")):  # fmt: skip
        with pytest.raises(RunError, match=said):
            reproduce._placed(recipe_of_run(record).recipe, record, dataset, "it")
    assert reproduce._placed(recipe, run.record, None, "it") == (str(table), recipe)


def test_tasks_are_looked_for_in_the_data_set_that_is_named(run, table):
    recipe = recipe_for(table)
    data, placed = reproduce._placed(recipe, run.record, "copy.csv", "it")
    assert data == "copy.csv" and [spec.dataset for spec in placed.task_specs] == ["copy.csv"] * 4
    assert [spec.column for spec in placed.task_specs] == [spec.column for spec in recipe.task_specs]


def test_a_task_that_nobody_measured_is_not_pushed_alone(run, tmp_path, monkeypatch):
    record = run.record
    del record["result"]["tasks"]["light"]
    monkeypatch.setattr("zoo.runs.extract_task.checked_record", lambda whole: record)
    with pytest.raises(RunError, match=r"the task light of .* cannot be published alone"):
        one_task(run, "light", tmp_path / "light")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("colour",)}, "'colour' is not a task; write NAME=DATASET"),
        ({"tasks": ("a=t.csv:x:odd",)}, "the kind 'odd' is none of single-label"),
        ({"tasks": ("a=t.csv:x", "a=t.csv:y")}, "two are called a"),
        ({"tasks": ("a=t.csv:x",), "task_weights": {"b": 1.0}}, "task_weights[b]: there is no such task"),
        ({"task_weighting": "pcgrad"}, "task_weighting: there are no tasks"),
        ({"tasks": ("a=t.csv:x",), "task_weights": {"a": 1.0}, "task_weighting": "uncertainty"}, "learns the weights"),
        ({"tasks": ("a=t.csv:x",), "mixup": 0.2, "soup": True}, "mixup: needs one class of each image"),
        ({"tasks": ("a=t.csv:x",), "label_column": "x"}, "label_column: each task names its column"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(RecipeError) as caught:
        zoo.Recipe(**changes)
    assert said in caught.value.why


def test_a_recipe_with_tasks_comes_back(table):
    recipe = recipe_for(table, task_weights={"light": 0.5}, task_temperature=0.5)
    assert zoo.Recipe.from_record(json.loads(json.dumps(recipe.record()))) == recipe
