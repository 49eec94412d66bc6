"""A backbone's name and a data set's name, as somebody types them, against a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.contents import put_cifar10, put_timm_weights
from tests.hub.server import Server

ROOT = Path(__file__).resolve().parents[2]


def zoo(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    everything.pop("HF_HUB_OFFLINE", None) if "HF_ENDPOINT" in environment else None
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, cwd=cwd, env=everything, capture_output=True, text=True, timeout=900)


@pytest.mark.heavy
def test_resnet50_on_cifar10_by_name(hub: Server, tmp_path: Path) -> None:
    put_cifar10(hub.root, train=4, test=1)
    put_timm_weights(hub.root, "resnet50.a1_in1k")

    done = zoo("adapt", "resnet50", "--dataset", "cifar10", "--json", cwd=tmp_path, **hub.environment())

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["result"]["n"] == 10 and answer["result"]["split"] == "test"
    folder = tmp_path / "runs" / "resnet50-cifar10"
    assert Path(answer["run"]) == folder
    record = json.loads((folder / "run.json").read_text())
    assert record["backbone"]["weights"]["name"] == "a1_in1k"
    assert [phase["name"] for phase in record["plan"]["phases"]] == ["probe", "finetune"]
    assert record["dataset"]["hub"] == "uoft-cs/cifar10" and record["dataset"]["revision"] is None
    assert "- uoft-cs/cifar10\n" in (folder / "README.md").read_text()
    assert record["dataset"]["classes"][:2] == ["airplane", "automobile"]
    assert (folder / "report.html").stat().st_size > 10_000 and (folder / "model.safetensors").is_file()


def test_offline_it_says_what_is_missing_and_how_to_bring_it(tmp_path: Path) -> None:
    done = zoo("adapt", "resnet_nano", "--dataset", "cifar10", "--json", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "cifar10" in error["what"] and "HF_HUB_OFFLINE" in error["why"] + error["fix"]
    assert not (tmp_path / "runs").exists()

    done = zoo("adapt", "resnet50", "--dataset", "digits", "--json", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "resnet50" in error["what"] and "timm/resnet50.a1_in1k" in error["what"] and "--weights" in error["fix"]
    assert not (tmp_path / "runs").exists()
