"""A run that is done again from its record gives the same weights, and what differs is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import zoo
from tests.pictures import four
from tests.runs.publish.conftest import Client, client, hub
from zoo.cli import main
from zoo.errors import HubError, RunError
from zoo.runs.recipe_file import read_recipe
from zoo.runs.run_folder import Run

__all__ = ["client", "hub"]
RECIPE = zoo.Recipe(
    strategy="lp-ft", probe_epochs=1, epochs=1, batch_size=8, image_size=32, mixup=0.2, ema=0.8, augment="standard",
    threads=1, device="cpu", seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("reproduce")
    return zoo.adapt("resnet_nano", str(four(root / "photos", 8)), RECIPE, out=root / "first")


def test_the_recipe_of_a_run_gives_the_same_weights(first: Run, tmp_path: Path) -> None:
    found = read_recipe(first.record_path)
    again = zoo.adapt(found.backbone, found.dataset, found.recipe, out=tmp_path / "again")
    assert (again.path / "model.safetensors").read_bytes() == (first.path / "model.safetensors").read_bytes()


def test_a_run_is_reproduced_to_the_bit(
    first: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.run(["reproduce", str(first.path), "--out", str(tmp_path / "again"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    tensors = document["tensors"].pop("n")
    assert tensors > 10
    assert document == {
        "reference": str(first.path),
        "run": str(tmp_path / "again"),
        "identical": True,
        "max_difference": 0.0,
        "tensors": {"differing": 0},
        "accuracy": {"before": first.result.accuracy, "now": first.result.accuracy},
        "differences": [],
    }


def test_norm_statistics_a_domain_and_a_second_training_are_reproduced_too(first: Run, tmp_path: Path) -> None:
    drawings = four(tmp_path / "drawings", 5, size=40)
    choices = {"recalibrate": "on", "refit": "on", "target": str(drawings), "align": "dann", "semi": "fixmatch"}
    run = zoo.adapt("resnet_nano", first.record["dataset"]["ref"], replace(RECIPE, **choices), out=tmp_path / "run")
    assert run.record["refit"] and run.record["resolved"]["recalibrate"] == "on"
    done = zoo.reproduce(run, out=tmp_path / "again")
    assert done.identical and not done.differences
    (drawings / "red" / "000.png").unlink()
    assert "images without labels" in [each.what for each in zoo.reproduce(run, out=tmp_path / "other").differences]


def test_what_differs_is_said(first: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Run(Path(shutil.copytree(first.path, tmp_path / "old")))
    record = old.record
    record["environment"] |= {"torch": "1.0", "threads": 64}
    old.write_record(record)
    photos = shutil.copytree(record["dataset"]["ref"], tmp_path / "photos")
    (photos / "red" / "000.png").unlink()
    assert main.run(["reproduce", str(old.path), "--dataset", str(photos), "--out", str(tmp_path / "again")]) == 0
    shown, told = capsys.readouterr()
    assert "weights   not the same: by up to " in shown
    for text in ("data: ", "torch: 1.0 then, ", "threads: 64 then, 1 now"):
        assert f"differs   {text}" in shown and f"different from the first run: {text}" in told


def test_a_device_that_is_not_here_is_replaced(first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.training.machine.devices", lambda: ["cpu"])
    old = Run(Path(shutil.copytree(first.path, tmp_path / "old")))
    record = old.record
    record["resolved"]["device"] = "cuda"
    old.write_record(record)
    heard: list[object] = []
    done = zoo.reproduce(old, out=tmp_path / "again", on_event=heard.append)
    assert any("there is no cuda device here" in str(event) for event in heard)
    assert done.run.record["resolved"]["device"] == "cpu"


def test_a_published_run_is_reproduced(client: Client, first: Run, tmp_path: Path) -> None:
    pushed = client.push(first.path, "tester/four", "--json")
    assert pushed.code == 0, pushed.err
    with pytest.raises(RunError, match="does not say where its images are") as caught:
        zoo.reproduce("tester/four", out=tmp_path / "again")
    assert caught.value.fix == "name them: --dataset …"
    done = zoo.reproduce("tester/four", dataset=first.record["dataset"]["ref"], out=tmp_path / "again")
    assert done.identical and done.reference == "hf-hub:tester/four" and not done.differences
    assert done.accuracy_before == done.accuracy_now == first.result.accuracy


def test_a_model_that_zoo_did_not_publish_is_refused(client: Client, first: Run, tmp_path: Path) -> None:
    assert client.push(first.path, "tester/four").code == 0
    for path in client.hub.root.rglob("zoo.json"):
        path.unlink()
    with pytest.raises(HubError, match=r"tester/four was not published by zoo|cannot be had"):
        zoo.reproduce("tester/four", dataset="digits", out=tmp_path / "again")
    with pytest.raises(RunError, match="is neither a run nor a model on the Hub"):
        zoo.reproduce("nothing here", out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_other_weights_than_a_file_had_are_said(tmp_path: Path, first: Run) -> None:
    """The fingerprint is of what the weights are, whatever their file is called."""
    weights = shutil.copytree(first.path, tmp_path / "weights")
    recipe = replace(RECIPE, weights=str(weights), strategy="probe", probe_epochs=None)
    second = zoo.adapt("resnet_nano", first.record["dataset"]["ref"], recipe, out=tmp_path / "second")
    done = zoo.reproduce(second, weights="default", out=tmp_path / "third")
    assert not done.identical
    assert "weights to start from" in [difference.what for difference in done.differences]
