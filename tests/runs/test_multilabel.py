"""Several labels of an image, from a table to a published model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import zoo
from zoo.errors import RecipeError, RunError
from zoo.events import EpochDone
from zoo.tasks.multilabel import choose_thresholds

COLOURS = ("blue", "green", "red")
RECIPE = zoo.Recipe(
    strategy="finetune", epochs=2, lr=3e-3, batch_size=16, image_size=32, precision="fp32", threads=1, augment="none",
    cache="off", label_separator="+", refit="off",
)  # fmt: skip


def painted(labels: list[str], seed: int) -> Image.Image:
    """A dark picture whose channels are bright where the label is there."""
    pixels = np.random.default_rng(seed).integers(0, 60, (36, 36, 3), dtype=np.uint8)
    for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
        pixels[:, :, channel] += np.uint8(150) if name in labels else np.uint8(0)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    lines = ["path,label,split"]
    for number in range(96):
        labels = [name for place, name in enumerate(COLOURS) if number >> place & 1]
        split = ("train", "train", "train", "train", "val", "test")[number // 16]
        painted(labels, number).save(root / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{'+'.join(labels)},{split}")
    (root / "colours.csv").write_text("\n".join(lines) + "\n")
    return root / "colours.csv"


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[zoo.Run, list[EpochDone]]:
    events: list[Any] = []
    run = zoo.adapt("resnet_nano", str(table), RECIPE, out=tmp_path_factory.mktemp("runs") / "run",
                    on_event=events.append)  # fmt: skip
    return run, [event for event in events if isinstance(event, EpochDone)]


def test_it_learns_and_says_so(trained):
    run, epochs = trained
    result, record = run.result, run.record
    assert result.problem == "multi-label" and result.n == 16
    assert result.map > 0.9 and result.map > record["result"]["baseline"] + 0.3
    assert result.top5 is None and "confusion" not in record["result"]
    assert [row["name"] for row in record["result"]["labels"]] == list(COLOURS)
    assert record["resolved"]["problem"] == "multi-label" and record["resolved"]["select_by"] == "map"
    assert record["resolved"]["label_smoothing"] == 0
    assert [set(event.values) for event in epochs] == [{"map"}] * 2 and epochs[0].val_accuracy is None
    assert record["best"]["map"] == max(event.values["map"] for event in epochs), "the epoch was chosen by mAP"
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["values"]["map"] for line in lines if line["event"] == "epoch"] == [e.values["map"] for e in epochs]


def test_thresholds_travel_with_the_model(trained, table):
    run, _ = trained
    config = json.loads((run.path / "config.json").read_text())
    (task,) = config["zoo"]["tasks"]
    assert config["problem_type"] == "multi_label_classification" and config["label_names"] == list(COLOURS)
    assert task["thresholds"] == [row["threshold"] for row in run.record["result"]["labels"]]
    assert run.record["dataset"]["tasks"] == [task]
    model = timm.create_model(f"local-dir:{run.path}", pretrained=True).eval()
    assert model.num_classes == 3
    paths = [str(table.parent / f"{number:03d}.png") for number in range(80, 96)]
    predicted = zoo.predict(run, paths)
    transform = zoo.load(run).transform
    with torch.inference_mode():
        shares = model(torch.stack([transform(Image.open(path)) for path in paths])).sigmoid()
    for row, prediction in zip(shares.tolist(), predicted, strict=True):
        expected = {name for name, share, least in zip(COLOURS, row, task["thresholds"], strict=True) if share >= least}
        assert {label for label, _ in prediction.labels} == expected
        assert prediction.label is None and set(prediction.record()) == {"path", "labels", "top"}


def test_thresholds_are_chosen_on_the_images_that_choose(trained, table):
    """Those of the report would flatter it."""
    run, _ = trained
    model = zoo.load(run)
    chosen = {}
    for name, numbers in (("val", range(64, 80)), ("test", range(80, 96))):
        images = [Image.open(table.parent / f"{number:03d}.png") for number in numbers]
        with torch.inference_mode():
            logits = model(torch.stack([model.transform(image) for image in images]))
        truth = torch.tensor([[float(number >> place & 1) for place in range(3)] for number in numbers])
        chosen[name] = choose_thresholds(logits, truth)
    found = run.record["dataset"]["tasks"][0]["thresholds"]
    assert found == pytest.approx(chosen["val"], abs=1e-3)
    assert found != pytest.approx(chosen["test"], abs=1e-3), "or this would tell nothing"


def test_scoring_it_again_says_the_same(trained, table):
    run, _ = trained
    assert zoo.evaluate(run)["map"] == pytest.approx(run.result.map)
    again = zoo.evaluate(run, str(table), split="test")
    assert again["map"] == pytest.approx(run.result.map) and again["micro_f1"] == pytest.approx(run.result.micro_f1)
    assert again["labels"] == run.record["result"]["labels"], "with the thresholds that were chosen, not new ones"


def test_card_and_report_have_a_table_of_labels(trained):
    run, _ = trained
    card = (run.path / "README.md").read_text()
    assert "| Mean average precision | **" in card and "| Label | Images with it | Average precision |" in card
    assert ".sigmoid()" in card and "softmax" not in card and "mean_average_precision" in card
    page = run.report.read_text()
    assert 'id="per-label"' in page and "<b>mAP</b> on" in page and "Predicted as" not in page


def test_what_is_published_has_the_thresholds_and_no_path(trained, tmp_path, table):
    run, _ = trained
    zoo.push(run, "me/colours", dry_run=tmp_path / "out")
    published = (tmp_path / "out" / "config.json").read_text()
    assert json.loads(published)["zoo"]["tasks"][0]["thresholds"]
    assert str(table.parent) not in (tmp_path / "out" / "zoo.json").read_text()


def test_a_second_training_does_not_move_the_thresholds(table, tmp_path):
    """They are chosen before it: afterwards the images that choose have been trained on."""
    plain = table.read_text().replace(",val\n", ",train\n")
    (table.parent / "cut.csv").write_text(plain)
    recipe = replace(RECIPE, epochs=1, refit="off")
    first = zoo.adapt("resnet_nano", str(table.parent / "cut.csv"), recipe, out=tmp_path / "first")
    twice = zoo.adapt("resnet_nano", str(table.parent / "cut.csv"), replace(recipe, refit="on"), out=tmp_path / "twice")
    assert twice.record["refit"]["images"] == 80
    assert twice.record["dataset"]["tasks"] == first.record["dataset"]["tasks"]


def test_kept_activations_give_the_same(table, tmp_path):
    recipe = replace(RECIPE, strategy="probe", label_loss="asymmetric", epochs=1)
    kept = zoo.adapt("resnet_nano", str(table), replace(recipe, cache="on"), out=tmp_path / "kept")
    whole = zoo.adapt("resnet_nano", str(table), recipe, out=tmp_path / "whole")
    assert kept.record["plan"]["phases"][0]["cache"] and not whole.record["plan"]["phases"][0].get("cache")
    assert kept.result.loss == pytest.approx(whole.result.loss, abs=1e-3)


def test_choices_about_one_class_are_refused(table, tmp_path):
    recipe = replace(RECIPE, mixup=0.2, select_by="accuracy", soup=True)
    with pytest.raises(RecipeError) as caught:
        zoo.plan("resnet_nano", str(table), recipe)
    assert "mixup, soup, select_by accuracy" in caught.value.what
    with pytest.raises(RecipeError, match="label_loss asymmetric"):
        zoo.plan("resnet_nano", "digits", zoo.Recipe(label_loss="asymmetric"))


def test_tasks_that_are_not_the_heads_are_refused(trained, tmp_path):
    run, _ = trained
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["zoo"]["tasks"][0]["classes"].pop()
    config["zoo"]["tasks"][0]["thresholds"].pop()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError) as caught:
        zoo.models.saved.load(tmp_path)
    assert "about 2 outputs, and the head has 3" in caught.value.why


def test_other_commands_say_that_they_want_one_class(table):
    with pytest.raises(zoo.ZooError, match=r"zoo compare takes images of one class each|takes images of one class"):
        zoo.compare(["resnet_nano", "resnet_nano=none"], str(table), RECIPE, seeds=1)
