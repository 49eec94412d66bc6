"""Whether norm statistics are re-estimated, from the data as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

import zoo
from tests.training.toy import pieces
from zoo.events import StepDone, ignore
from zoo.models.spec import Weights
from zoo.runs.prepare import prepare
from zoo.runs.run_folder import Run
from zoo.training.loaded import Decision
from zoo.training.norms import policy

CHOICES: dict[str, Any] = {
    "strategy": "probe", "image_size": 32, "batch_size": 32, "refit": "off", "augment": "none", "precision": "fp32",
    "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of each digit."""
    root, found = tmp_path_factory.mktemp("digits"), load_digits()
    for label in range(10):
        (root / str(label)).mkdir()
        for number, pixels in enumerate(found.images[found.target == label][:30]):
            grey = (16 * pixels).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey.repeat(4, 0).repeat(4, 1)).save(root / str(label) / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights whose norms remember images of another world."""
    path = tmp_path_factory.mktemp("weights") / "strange.safetensors"
    model = zoo.load("resnet_nano")
    tensors = {name: 400 * value if name.endswith("running_var") else value.contiguous()
               for name, value in model.state_dict().items()}  # fmt: skip
    facts = {"architecture": "test_resnet", "num_classes": str(model.num_classes)}
    save_file(tensors, path, metadata=facts)
    return str(path)


def statistics(run: Run) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_file(run.path / "model.safetensors").items() if "running" in name}


def test_weights_of_another_world_get_statistics_of_these_images(digits: Path, strange: str, tmp_path: Path) -> None:
    def adapted(name: str, **choices: Any) -> Run:
        recipe = zoo.Recipe(**(CHOICES | choices), weights=strange, epochs=5)
        return zoo.adapt("resnet_nano", str(digits), recipe, out=tmp_path / name)

    auto, off = adapted("auto"), adapted("off", recalibrate="off")
    assert (auto.record["resolved"]["recalibrate"], off.record["resolved"]["recalibrate"]) == ("on", "off")
    notes = " ".join(auto.record["plan"]["notes"])
    assert "norm statistics are those of" in notes and "a linear probe classifies" in notes
    assert auto.record["result"]["accuracy"] > off.record["result"]["accuracy"] + 0.1
    came = auto.record["backbone"]["fingerprint"]
    assert came == off.record["backbone"]["fingerprint"], "it is that of the weights as they came"
    kept = load_file(strange)
    assert all(torch.equal(value, kept[name]) for name, value in statistics(off).items())
    assert not any(torch.equal(value, kept[name]) for name, value in statistics(auto).items())


def test_a_stopped_run_goes_on_with_the_same_statistics(digits: Path, strange: str, tmp_path: Path) -> None:
    recipe = zoo.Recipe(**CHOICES, weights=strange, epochs=2, checkpoint_every="1 step")
    whole = zoo.adapt("resnet_nano", str(digits), recipe, out=tmp_path / "whole")

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.adapt("resnet_nano", str(digits), recipe, out=tmp_path / "cut", on_event=stop)
    again = zoo.adapt(resume=tmp_path / "cut")
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def settled(images: Path, **choices: Any) -> tuple[str, str]:
    ready = prepare("resnet_nano", str(images), zoo.Recipe(**(CHOICES | choices)), ignore)
    return ready.work.settled.recalibrate, " ".join(ready.plan.notes)


def test_where_there_is_nothing_to_win_they_stay(digits: Path, strange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(digits, strategy="scratch")[0] == "off"
    assert settled(digits, strategy="finetune", weights="none")[0] == "off"
    monkeypatch.setattr(policy, "is_better", lambda one, other: False)
    before = load_file(strange)["bn1.running_var"]
    ready = prepare("resnet_nano", str(digits), zoo.Recipe(**CHOICES, weights=strange), ignore)
    assert ready.work.settled.recalibrate == "off" and not ready.plan.notes[1:]
    assert torch.equal(ready.loaded.model.state_dict()["bn1.running_var"], before), "what was tried leaves no trace"


def test_images_that_look_alike_are_not_even_tried(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "shift", lambda *given: 0.9 * policy.SHIFTED)
    monkeypatch.setattr(policy, "recalibrate", None)  # calling it would fail
    assert settled(digits)[0] == "off"


def test_a_person_decides(digits: Path, strange: str) -> None:
    assert settled(digits, weights=strange, recalibrate="off")[0] == "off"
    setting, notes = settled(digits, recalibrate="on")
    assert setting == "on" and "not of the pretraining" in notes


def test_images_without_labels_count_where_they_go_through_the_norms() -> None:
    model, weights = zoo.load("resnet_nano"), Weights(name="any", source="timm")
    one = SimpleNamespace(num_processes=1, device=torch.device("cpu"))

    def mode(recipe: zoo.Recipe, images: int, unlabelled: int = 0) -> Decision:
        more = SimpleNamespace(train=range(unlabelled)) if unlabelled else None
        return policy.norm_mode(recipe, pieces(model, one, range(images), weights=weights, unlabelled=more))

    recipe = zoo.Recipe(strategy="finetune", batch_size=16)
    assert mode(recipe, 40).changes == {"norm": "fixed"}, "too few to follow"
    assert mode(recipe, 40, 5000).changes == {"norm": "fixed"}, "which no method uses"
    seven = replace(recipe, unlabelled="more", semi="pseudo", unlabelled_ratio=7)
    assert mode(seven, 40, 5000) == Decision({"norm": "live"})
    small = zoo.Recipe(strategy="finetune", batch_size=4)
    assert "batches are under 8" in mode(small, 4000).note
    equal = replace(small, unlabelled="more", semi="pseudo", unlabelled_ratio=1)
    assert mode(equal, 4000, 5000).changes == {"norm": "live"}
    assert mode(equal, 4000, 3).changes == {"norm": "fixed"}
