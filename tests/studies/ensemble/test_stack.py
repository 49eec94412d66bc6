"""A stack of runs: fitted on images that nobody was trained on, and usable like a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import zoo
from tests.studies.ensemble.conftest import RECIPE
from zoo.cli import main
from zoo.errors import DataError, RecipeError, RunError, TrainingInterrupted
from zoo.events import Note, PhaseStarted
from zoo.models import preprocessing, saved
from zoo.runs import load
from zoo.runs.publish.contents import checked_record
from zoo.runs.publish.licenses import settle_all
from zoo.runs.run_folder import Run, seal
from zoo.runs.stacked.held_out import held_out
from zoo.runs.stacked.members import members


@pytest.fixture(scope="module")
def wide(images, tmp_path_factory) -> Run:
    """A member that takes larger images, normalises them otherwise, and has its classes the other way round."""
    out = tmp_path_factory.mktemp("wide") / "wide"
    run = zoo.adapt("resnet_nano", str(images), replace(RECIPE, image_size=48), out=out)
    config = json.loads((run.path / "config.json").read_text())
    config["label_names"] = config["label_names"][::-1]
    config["pretrained_cfg"] |= {"mean": [0.4, 0.4, 0.4], "label_names": config["label_names"]}
    (run.path / "config.json").write_text(json.dumps(config))
    tensors = zoo.models.tensor_files.read_tensors(run.path / "model.safetensors")
    flipped = {name: tensor.flip(0) if name.startswith("fc.") else tensor for name, tensor in tensors.items()}
    zoo.models.tensor_files.write_tensors(flipped, run.path / "model.safetensors")
    record = run.record
    record["data_config"]["mean"] = [0.4, 0.4, 0.4]
    run.write_record(record)
    return run


@pytest.fixture(scope="module")
def stack(runs, wide, tmp_path_factory) -> Run:
    return zoo.stack([*runs[:2], wide], choice="weighted", out=tmp_path_factory.mktemp("stack") / "tints")


def test_its_table_has_everybody(stack):
    found = stack.record["stack"]
    kinds = {row["name"]: row["kind"] for row in found["rows"]}
    assert kinds == {"gentle": "member", "brisk": "member", "wide": "member", "plain mean": "mean", "mean": "way",
                     "weighted": "way", "gated": "way", "logistic": "way", "greedy soup": "soup"}  # fmt: skip
    assert [row["name"] for row in found["rows"] if row["chosen"]] == ["weighted"]
    assert {one["second"] for one in found["differences"]} == {found["best_single"], "plain mean"}
    assert sum(found["weights"]) == pytest.approx(1) and len(found["weights"]) == 3
    assert {one["name"] for one in found["soup"]["candidates"]} == {"gentle", "brisk"}, "wide has other preprocessing"
    assert found["n"] == 22 and found["fit_on"] == "val (cut from train)"
    for name in ("gentle", "brisk"):
        own = next(member for member in found["members"] if member["name"] == name)
        row = next(row for row in found["rows"] if row["name"] == name)
        assert row["accuracy"] == own["accuracy"], "as the member's own result says"


def test_what_it_says_is_what_its_members_say_put_together(stack, images):
    """From the files alone, with plain timm."""
    path = images / "test" / "blue" / "003.png"
    weights = torch.tensor(stack.record["stack"]["weights"], dtype=torch.float64)
    tensors = zoo.models.tensor_files.read_tensors(stack.path / "stack.safetensors")
    mixed = torch.zeros(2, dtype=torch.float64)
    for number, weight in enumerate(weights):
        model = timm.create_model(f"local-dir:{stack.path}/members/{number}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
        with torch.no_grad():
            logits = model(transform(Image.open(path).convert("RGB"))[None])[0].double()
        names = list(model.pretrained_cfg["label_names"])
        own = (logits[[names.index("amber"), names.index("blue")]].log_softmax(0)) / tensors["members"][number]
        mixed += weight * own.softmax(0)
    expected = (mixed.log() / tensors["temperature"]).softmax(0)
    guess = zoo.predict(stack, [path])[0]
    found = dict(guess.top)
    assert [found["amber"], found["blue"]] == pytest.approx(expected.tolist(), abs=1e-4)
    model = zoo.load(stack)
    with torch.no_grad():
        logs = model(*(each[None] for each in model.transform(Image.open(path).convert("RGB"))))
    assert logs.exp()[0].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert model.class_names == ("amber", "blue") and len(model.configs) == 2


def test_it_is_used_like_a_run(stack, images, capsys, tmp_path, monkeypatch):
    found = zoo.evaluate(stack)
    assert found["n"] == 20 and found["accuracy"] == stack.record["result"]["accuracy"]
    assert found["loss"] == pytest.approx(stack.record["result"]["loss"], rel=1e-4)
    other = zoo.evaluate(stack, str(images), split="train")
    assert other["n"] == 56
    folder = Run(Path(shutil.copytree(stack.path, tmp_path / "runs" / "tints")))
    monkeypatch.chdir(tmp_path)
    assert main.run(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    shown = {key: row[key] for key in ("kind", "strategy", "backbone", "status")}
    assert shown == {"kind": "stack", "strategy": "weighted", "backbone": "stack of 3", "status": "finished"}
    assert main.run(["predict", "tints", str(images / "test" / "amber" / "001.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in ("amber", "blue")
    assert main.run(["eval", "tints", "--split", "train"]) == 1
    assert "has no splits of its own" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="made from 3 runs"):
        zoo.runs.recipe_file.read_recipe(folder.path)
    page, card = stack.report.read_text(), (stack.path / "README.md").read_text()
    assert "How much each member counts" in page and "zoo adapt --recipe" not in page and "members/2" in card
    assert "library_name" not in card.split("---")[1]


def test_a_member_folder_is_a_whole_run(stack, runs):
    inside = Run(stack.path / "members" / "0")
    assert inside.record == runs[0].record and not inside.checkpoints.exists()
    assert zoo.evaluate(inside)["accuracy"] == runs[0].result.accuracy


def test_what_is_published_names_no_folder_of_this_machine(stack, tmp_path):
    done = zoo.push(stack, "me/tints", dry_run=tmp_path / "look")
    inside = {f"members/{number}/{name}" for number in range(3) for name in ("config.json", "model.safetensors")}
    assert {file.name for file in done.files} == {"README.md", "zoo.json", "stack.safetensors", *inside}
    assert done.license == "apache-2.0"
    for name in ("README.md", "zoo.json"):
        text = (tmp_path / "look" / name).read_text()
        assert "secret-place" not in text and "/tmp" not in text and str(Path.home()) not in text
    assert 'zoo.predict("hf-hub:me/tints"' in (tmp_path / "look" / "README.md").read_text()
    spoilt = Run(Path(shutil.copytree(stack.path, tmp_path / "spoilt")))
    (spoilt.path / "stack.safetensors").write_bytes(b"other")
    with pytest.raises(RunError, match=r"stack\.safetensors was changed after the run was finished"):
        checked_record(spoilt)


def test_a_licence_that_asks_for_as_much_as_every_members():
    assert settle_all(["apache-2.0", None, "cc-by-nc-4.0"], None) == "cc-by-nc-4.0"
    assert settle_all([None, "unknown"], None) is None
    with pytest.raises(zoo.errors.HubError, match="the members' weights are under cc-by-sa"):
        settle_all(["cc-by-sa-4.0", "cc-by-nc-4.0"], None)
    with pytest.raises(zoo.errors.HubError, match="cannot be published under mit"):
        settle_all(["apache-2.0", "cc-by-nc-4.0"], "mit")


@pytest.mark.parametrize("place", [0, 1, -1])
def test_auto_takes_what_its_rule_says(runs, tmp_path, monkeypatch, place):
    """The rule itself is in test_fitting."""
    monkeypatch.setattr("zoo.studies.ensemble.stack.chosen_of", lambda ways: ways[place])
    run = zoo.stack(runs[:2], out=tmp_path / "auto")
    found = run.record["stack"]
    assert found["asked"] == "auto" and found["choice"] == found["ways"][place]["kind"]
    assert next(row for row in found["rows"] if row["chosen"])["accuracy"] == run.result.accuracy


def test_weights_that_saw_the_same_data_are_said(runs, images, tmp_path):
    later = zoo.adapt(
        "resnet_nano", str(images), replace(RECIPE, weights=str(runs[0].path), data_seed=5), out=tmp_path / "later"
    )
    other = zoo.adapt("resnet_nano", str(images), replace(RECIPE, lr=2e-3, data_seed=5), out=tmp_path / "other")
    (note,) = [note for note in zoo.stack([later, other], out=tmp_path / "stack").record["stack"]["notes"]
               if "started from weights of a run on the same data" in note]  # fmt: skip
    assert note.startswith("later started")


def test_too_few_images_are_refused_with_the_way_out(runs, images, tmp_path):
    few = [zoo.adapt("resnet_nano", str(images), replace(RECIPE, train_per_class=10, lr=lr), out=tmp_path / f"few-{lr}")
           for lr in (1e-3, 1e-2)]  # fmt: skip
    with pytest.raises(DataError, match="too few images to fit a combination on") as caught:
        zoo.stack(few, out=tmp_path / "stack")
    assert "fewer than 10 images" in caught.value.why
    assert f"zoo stack {few[0].path} {few[1].path} --folds 5" in caught.value.fix
    assert "--val-fraction" in caught.value.fix
    refitted = Run(Path(shutil.copytree(runs[1].path, tmp_path / "refitted")))
    refitted.write_record(runs[1].record | {"id": "refitted", "refit": {"images": 56, "epochs": {"probe": 1}}})
    with pytest.raises(DataError) as caught:
        zoo.stack([runs[0], refitted], out=tmp_path / "stack")
    assert "refitted also trained on validation images" in caught.value.why
    assert not (tmp_path / "stack").exists()


def test_members_that_cut_the_images_differently_leave_only_what_none_has_seen(runs, images, tmp_path):
    recut = zoo.adapt("resnet_nano", str(images), replace(RECIPE, seed=3, val_fraction=0.6), out=tmp_path / "recut")

    chosen = members([runs[0], recut])
    configs = [preprocessing.data_config(saved.load(member.run.path)) for member in chosen]
    found = held_out(chosen, configs, lambda event: None)
    assert not found.same and len(found.val) > 0 and len(found.test) == 20
    options = [load.data_options(member.recipe, configs[0]) for member in chosen]
    opened = [zoo.data.open_dataset(str(images), each) for each in options]
    trained = {sample.id for dataset in opened for sample in dataset.train.samples}
    mine = {sample.id for sample in found.val.samples}
    assert not mine & trained
    assert mine == {sample.id for dataset in opened for sample in dataset.val.samples} - trained


def test_folds_ask_members_about_what_they_did_not_see_and_go_on_after_a_stop(runs, images, tmp_path, monkeypatch):
    seen = []

    def stop(event):
        if isinstance(event, PhaseStarted):
            seen.append(event)
            if len(seen) == 3:
                raise TrainingInterrupted("stopped", signal_number=15)

    with pytest.raises(TrainingInterrupted) as caught:
        zoo.stack(runs[:2], folds=2, out=tmp_path / "folded", on_event=stop)
    assert caught.value.fix == f"go on with it: zoo stack --resume {tmp_path / 'folded'}"
    stopped = Run(tmp_path / "folded")
    assert stopped.record["status"] == "interrupted"
    with pytest.raises(RunError, match="made from runs") as refused:
        zoo.adapt(resume=stopped.path)
    assert refused.value.fix == caught.value.fix
    kept = {path.name: Run(path) for path in (stopped.checkpoints / "folds").iterdir()}
    assert {name: run.finished for name, run in kept.items()} == {"0-1-of-2": True, "1-1-of-2": True, "0-2-of-2": False}
    asked = [kept[name].record["dataset"] for name in ("0-1-of-2", "1-1-of-2")]
    assert [each["reported_on"] for each in asked] == ["fold 1 of 2 of train"] * 2
    assert asked[0]["counts"]["report"]["n"] == 28, "half of the 56 training images"
    run = zoo.stack(resume=tmp_path / "folded", on_event=seen.append)
    told = [event.text for event in seen if isinstance(event, Note) and event.text.startswith("fold ")]
    assert told[0] == "fold 1 of 2: gentle" and {text.partition(": ")[2] for text in told} == {"gentle", "brisk"}
    assert sum(isinstance(event, PhaseStarted) for event in seen) == 3 + 2, "what was finished is not done again"
    found = run.record["stack"]
    assert found["n"] == 56 and found["folds"] == 2 and found["fit_on"] == "2 folds of the training images"
    assert {way["kind"] for way in found["ways"]} == {"mean", "weighted", "logistic"}
    named = [str(each.path) for each in runs[:2]]
    assert [each["run"] for each in found["members"]] == named, "not the copies that it went on with"
    assert {each["run"] for each in (found.get("soup") or {}).get("candidates", ())} <= {*named}
    assert not run.checkpoints.exists()
    assert zoo.evaluate(run)["accuracy"] == run.result.accuracy
    with pytest.raises(RunError, match="is finished already"):
        zoo.stack(resume=run.path)


def test_what_cannot_be_is_refused_before_anything_is_made(runs, tmp_path, capsys):
    with pytest.raises(RecipeError, match="a gate cannot be fitted by retrained members"):
        zoo.stack(runs, choice="gated", folds=3, out=tmp_path / "stack")
    with pytest.raises(RecipeError, match="no way of combining called vote"):
        zoo.stack(runs, choice="vote", out=tmp_path / "stack")
    with pytest.raises(RunError, match="nothing to combine"):
        zoo.stack(runs[:1], out=tmp_path / "stack")
    with pytest.raises(RunError, match="not a stack's folder"):
        zoo.stack(resume=runs[0].path)
    assert not (tmp_path / "stack").exists()
    assert main.run(["stack", "--resume", "somewhere", "--folds", "3"]) == 2
    assert "takes no others, but got --folds" in capsys.readouterr().err
    assert main.run(["stack", "--choice", "mean"]) == 2


def test_a_record_that_lies_about_its_members_is_refused(stack, tmp_path):
    bad = Run(Path(shutil.copytree(stack.path, tmp_path / "bad")))
    record = bad.record
    record["stack"]["choice"] = "vote"
    record["files"]["run.json"] = seal(record)
    bad.write_record(record)
    with pytest.raises(RunError, match="is not a stack's folder"):
        zoo.evaluate(bad)
    shutil.rmtree(bad.path / "members" / "1")
    bad.write_record(stack.record)
    with pytest.raises(RunError, match="holds no finished model"):
        zoo.predict(bad, [])
