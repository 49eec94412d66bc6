"""A greedy soup of runs: what is averaged, what comes out, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.studies.ensemble.conftest import RECIPE
from zoo.cli import main
from zoo.errors import DataError, RecipeError, RunError
from zoo.events import Note, Progress
from zoo.runs.run_folder import Run
from zoo.runs.stacked.members import members
from zoo.training.averaging import Sum


@pytest.fixture(scope="module")
def soup(runs, tmp_path_factory) -> Run:
    return zoo.soup(runs, out=tmp_path_factory.mktemp("soup") / "soup")


def test_the_weights_are_the_mean_of_those_that_it_says(soup, runs):
    rows = soup.record["soup"]["candidates"]
    assert {row["name"] for row in rows} == {"gentle", "brisk", "hasty"}
    assert [row["refinement"] for row in rows] == sorted(row["refinement"] for row in rows), "the best first"
    kept = [load_file(Path(row["run"]) / "model.safetensors") for row in rows if row["kept"]]
    total = Sum(kept[0])
    for other in kept[1:]:
        total = total.plus(other)
    saved = load_file(soup.path / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in total.mean().items())


def test_it_is_a_run_like_any_other(soup, images, tmp_path):
    record = soup.record
    assert record["resolved"]["device"] == "cpu", "on which its outputs were measured"
    found = zoo.evaluate(soup)
    assert found["accuracy"] == record["result"]["accuracy"] and found["n"] == 20
    guess = zoo.predict(soup, [images / "test" / "amber" / "000.png"])[0]
    assert guess.label in ("amber", "blue")
    assert (soup.path / "README.md").is_file() and "Soup: " in soup.report.read_text()
    pushed = zoo.push(soup, "me/soup", dry_run=tmp_path / "pushed")
    assert {file.name for file in pushed.files} == {"README.md", "config.json", "model.safetensors", "zoo.json"}
    assert "secret-place" not in (tmp_path / "pushed" / "zoo.json").read_text()
    names = [row["run"] for row in json.loads((tmp_path / "pushed" / "zoo.json").read_text())["soup"]["candidates"]]
    assert set(names) == {"gentle", "brisk", "hasty"}, "and no folders of this machine"


def test_nobody_takes_its_record_for_a_recipe(soup, tmp_path):
    with pytest.raises(RecipeError, match="made from 3 runs") as caught:
        zoo.runs.recipe_file.read_recipe(soup.path)
    assert "gentle" in caught.value.fix
    with pytest.raises(RecipeError, match="made from 3 runs"):
        zoo.reproduce(soup, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_one_that_was_interrupted_is_not_trained_on(runs, tmp_path):
    def stop(event):
        if isinstance(event, Progress) and event.stage == "trying soups" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.soup(runs, out=tmp_path / "half", on_event=stop)
    for use in (lambda path: zoo.adapt(resume=path), zoo.evaluate, lambda path: zoo.soup(runs, out=path)):
        with pytest.raises(RunError) as caught:
            use(tmp_path / "half")
        assert f"delete {tmp_path / 'half'}, and make the soup again: zoo soup" in caught.value.fix
    left = Run(tmp_path / "half")
    assert left.record["status"] == "interrupted" and not (left.path / "model.safetensors").exists()


def test_on_the_command_line(runs, tmp_path, capsys):
    code = main.run(["soup", *(str(run.path) for run in runs[:2]), "--out", str(tmp_path / "both"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["run"] == str(tmp_path / "both")
    assert document["soup"]["kept"] in (1, 2) and "confusion" not in document["result"]


def test_runs_that_cannot_be_averaged_are_refused_and_nothing_is_written(runs, images, tmp_path):
    other = Run(Path(shutil.copytree(runs[0].path, tmp_path / "other")))

    record = runs[0].record
    backbone, dataset = record["backbone"], record["dataset"]
    sizes = record["data_config"] | {"input_size": [3, 64, 64]}
    cases = [
        ([runs[0]], "there is nothing to combine"),
        ([runs[0], runs[0]], "are the same run"),
        ([runs[0], tmp_path / "none"], "is not a run folder"),
        ({"kind": "multitask"}, "does not give each image one class"),
        ({"kind": "stack"}, "is a stack, not a run of one model"),
        ({"status": "interrupted"}, "is not finished"),
        ({"backbone": backbone | {"arch": "resnet18"}}, "one is a test_resnet, the other a resnet18"),
        ({"dataset": dataset | {"classes": ["blue", "amber"]}}, "the classes in another order"),
        ({"dataset": dataset | {"classes": ["amber", "teal"]}}, r"lacks blue; .* also has teal"),
        ({"data_config": sizes}, "images of 32 pixels, the other of 64"),
    ]
    for asked, message in cases:
        if isinstance(asked, dict):
            other.write_record(runs[1].record | {"id": "another"} | asked)
            asked = [runs[0], other]
        with pytest.raises(RunError) as caught:
            zoo.soup(asked, out=tmp_path / "soup")
        assert re.search(message, str(caught.value))
        assert not (tmp_path / "soup").exists()


def test_images_that_a_run_was_trained_on_choose_nothing(runs, images, tmp_path):
    recut = zoo.adapt("resnet_nano", str(images), replace(RECIPE, seed=1), out=tmp_path / "recut")
    with pytest.raises(DataError, match="same train, val and test images") as caught:
        zoo.soup([runs[0], recut], out=tmp_path / "soup")
    assert "--data-seed" in caught.value.fix
    again = zoo.adapt("resnet_nano", str(images), replace(RECIPE, seed=1, data_seed=0), out=tmp_path / "again")
    assert again.record["dataset"]["fingerprint"] == runs[0].record["dataset"]["fingerprint"]
    refitted = Run(Path(shutil.copytree(again.path, tmp_path / "refitted")))
    refitted.write_record(again.record | {"refit": {"images": 56, "epochs": {"probe": 1}}, "id": "refitted"})
    with pytest.raises(DataError, match="no validation image is left to choose a soup by") as caught:
        zoo.soup([runs[0], refitted], out=tmp_path / "soup")
    assert caught.value.fix == "adapt with --refit off" and not (tmp_path / "soup").exists()


def test_a_network_that_two_runs_hold_is_averaged_once(runs, tmp_path):
    twin = Run(Path(shutil.copytree(runs[0].path, tmp_path / "twin")))
    twin.record_path.write_text(json.dumps({**twin.record, "id": "another"}))
    told: list[str] = []
    made = zoo.soup([runs[0], twin, runs[2]], out=tmp_path / "soup",
                    on_event=lambda event: told.append(event.text) if isinstance(event, Note) else None)  # fmt: skip
    assert {row["name"] for row in made.record["soup"]["candidates"]} == {"gentle", "hasty"}
    assert any(text.startswith("twin has the same network as gentle") for text in told)


def test_two_runs_of_one_name_are_told_apart(runs, tmp_path):
    there = Run(Path(shutil.copytree(runs[1].path, tmp_path / "gentle")))
    assert [member.name for member in members([runs[0], there])] == ["gentle", "gentle-2"]
    mean = Run(Path(shutil.copytree(runs[2].path, tmp_path / "mean")))
    assert members([runs[0], mean])[1].name == "mean-2", "a stack's table has a mean already"
