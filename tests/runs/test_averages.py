"""Soup and WiSE-FT in a whole run: what is saved, what is measured, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.runs.photos import make_photos
from zoo.runs import averages as averaging
from zoo.runs import train
from zoo.training.averaging import interpolate

BRIEF = {"image_size": 32, "batch_size": 11, "threads": 1, "workers": 0, "precision": "fp32", "cache": "off",
         "recalibrate": "off"}  # fmt: skip


def test_a_run_is_saved_as_the_average_that_it_says_it_is(tmp_path, monkeypatch):
    ends = {}

    def watch(loaded, work, session):
        ends["start"] = session.read_weights("start.safetensors")
        ends["kept"] = [dict(entry) for entry in session.position.epochs_kept]
        found = averaging.averaged(loaded, work, session)
        ends["saved"] = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
        return found

    monkeypatch.setattr(train, "averaged", watch)
    recipe = zoo.Recipe(strategy="lp-ft", probe_epochs=1, epochs=3, soup=True, wise=0.5, **BRIEF)
    run = zoo.adapt("resnet_nano", str(make_photos(tmp_path)), recipe, out=tmp_path / "run")
    record = run.record
    soup, wise = record["soup"], record["wise"]
    assert [row["phase"] for row in soup["candidates"]] == ["finetune"] * 3
    assert soup["kept"] == sum(row["kept"] for row in soup["candidates"]) >= 1
    assert wise["alpha"] == 0.5 and wise["start"] == "end of probe"
    assert [row["alpha"] for row in wise["candidates"]] == [0, 0.5, 1]
    # The end that wise averages is the soup, whose scores are known.
    assert wise["candidates"][2]["refinement"] == soup["refinement"]
    saved = load_file(run.path / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in ends["saved"].items())
    moved = [name for name, tensor in saved.items() if not torch.equal(tensor, ends["start"][name])]
    assert any(name.startswith("layer1") for name in moved), "the start is not all there is in it"
    found = zoo.evaluate(run)
    assert found["accuracy"] == record["result"]["accuracy"]
    assert found["loss"] == pytest.approx(record["result"]["loss"], rel=1e-5)
    assert not run.checkpoints.exists()
    page, card = run.report.read_text(), (run.path / "README.md").read_text()
    assert (
        "Averaged weights" in page
        and "0.5 of the fine-tuned weights" in page
        and "0.5 of the fine-tuned weights" in card
    )


def test_an_untrained_head_is_not_averaged_with(tmp_path, monkeypatch):
    monkeypatch.setattr(
        train, "finish", lambda this, ready, session, averages, tasks, **_: this.record | {"end": averages}
    )
    lines = []
    real = averaging.wise_ft

    def watch(start, end, asked, score, select_by, keep):
        lines.append((start, end, keep))
        return real(start, end, asked, score, select_by, keep)

    monkeypatch.setattr(averaging, "wise_ft", watch)
    recipe = zoo.Recipe(strategy="finetune", epochs=1, wise=0.0, **BRIEF)
    zoo.adapt("resnet_nano", str(make_photos(tmp_path)), recipe, out=tmp_path / "run")
    ((start, end, keep),) = lines
    assert set(keep) == {"fc.weight", "fc.bias"}
    mixed = interpolate(start, end, 0.0, keep)
    assert torch.equal(mixed["fc.weight"], end["fc.weight"]) and not torch.equal(end["fc.weight"], start["fc.weight"])
    assert all(
        torch.equal(mixed[name], start[name]) for name in mixed if name.startswith("layer") and "num" not in name
    )
