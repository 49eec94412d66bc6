"""A published model in processes that know nothing of the run: plain timm, transformers, zoo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from tests.hub.server import Server
from tests.pictures import make_images
from tests.runs.publish.conftest import RECIPE, turn_to
from zoo.models.weights import file_sha256
from zoo.runs.run_folder import Run

ROOT = Path(__file__).resolve().parents[3]

PLAIN = """
import importlib, json, sys, timm, torch
from safetensors.torch import load_file
for module in sys.argv[3:]:
    importlib.import_module(module)
kept = load_file(sys.argv[2])
model = timm.create_model(sys.argv[1], pretrained=True).eval()
with torch.no_grad():
    logits = model(kept["inputs"])
assert "zoo" not in sys.modules
print(json.dumps({"labels": model.pretrained_cfg["label_names"], "logits": logits.tolist()}))
"""
PIPELINE = """
import importlib, json, sys
from transformers import pipeline
for module in sys.argv[3:]:
    importlib.import_module(module)
print(json.dumps(pipeline("image-classification", model=sys.argv[1])(sys.argv[2], top_k=9)))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("loading") / "hub") as server:
        yield server
    assert not server.errors


def fresh(server: Server, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process with an empty cache, unless HF_HOME is given."""
    everything = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "home")}
    everything |= server.environment(server.token) | environment
    return subprocess.run(
        [sys.executable, *words], env=everything, cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def pushed(server: Server, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = fresh(
        server, tmp_path_factory.mktemp("push"), "-m", "zoo", "push", str(finished.path), "tester/tints", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert server.token not in done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_push_itself_has_loaded_it_back(pushed: dict[str, Any]) -> None:
    assert pushed["verified"] is True
    assert pushed["proof"]["images"] == 10 and pushed["proof"]["module"] is None
    assert pushed["proof"]["difference"] <= pushed["proof"]["allowed"]


def test_plain_timm_gives_the_runs_labels_and_logits(
    server: Server, pushed: dict[str, Any], finished: Run, tmp_path: Path
) -> None:
    kept = str(finished.path / "verify.safetensors")
    done = fresh(server, tmp_path, "-c", PLAIN, f"hf-hub:tester/tints@{pushed['commit']}", kept)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["labels"] == finished.record["dataset"]["classes"]
    assert torch.allclose(torch.tensor(answer["logits"]), load_file(kept)["logits"], atol=1e-4)


def test_transformers_gives_the_runs_labels_and_probabilities(
    server: Server, pushed: dict[str, Any], finished: Run, tmp_path: Path
) -> None:
    kept = load_file(finished.path / "verify.safetensors")
    Image.fromarray(kept["raw.00"].numpy()).save(tmp_path / "image.png")
    done = fresh(server, tmp_path, "-c", PIPELINE, "tester/tints", "image.png")
    assert done.returncode == 0, done.stderr
    found = {row["label"]: row["score"] for row in json.loads(done.stdout.splitlines()[-1])}
    wanted = dict(zip(finished.record["dataset"]["classes"], kept["logits"][0].softmax(0).tolist(), strict=True))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_zoo_predicts_and_evaluates_with_it_and_then_offline(
    server: Server, pushed: dict[str, Any], finished: Run, tmp_path: Path
) -> None:
    photos = finished.path.parent / "secret-place" / "photos"
    image = str(photos / "test" / "blue" / "000.png")
    done = fresh(server, tmp_path, "-m", "zoo", "predict", "hf-hub:tester/tints", image, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    (wanted,) = zoo.predict(finished, [image])
    assert row["label"] == wanted.label and row["probability"] == pytest.approx(wanted.probability, abs=1e-4)

    offline = {"HF_HUB_OFFLINE": "1"}
    done = fresh(server, tmp_path, "-m", "zoo", "eval", "tester/tints", "--dataset", str(photos), "--json", **offline)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == finished.result.accuracy


def test_a_copy_that_does_something_else_is_not_verified(
    server: Server, pushed: dict[str, Any], finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels in another order, weights that were changed: each is told, with the way back."""
    from zoo.errors import HubError
    from zoo.models.hub_client import session
    from zoo.runs.publish.contents import Published
    from zoo.runs.publish.verify import verify

    folder = server.root / "models/tester/spoilt"
    folder.mkdir(parents=True)
    good = server.root / "models/tester/tints"
    config = json.loads((good / "config.json").read_text())
    config["label_names"] = config["label_names"][::-1]
    config["pretrained_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(good / "model.safetensors")
    from safetensors.torch import save_file

    save_file({name: value + 0.5 if name == "fc.bias" else value for name, value in tensors.items()},
              folder / "model.safetensors")  # fmt: skip
    commit = server.repos.find("models", "tester/spoilt").head().sha
    sent = [Published("model.safetensors", b"", 0, finished.record["files"]["model.safetensors"])]
    sent.append(Published("config.json", b"", 0, file_sha256(folder / "config.json")))
    turn_to(server, tmp_path, monkeypatch)
    with session(), pytest.raises(HubError) as caught:
        verify(finished, finished.record, "tester/spoilt", commit, sent, replaced=None)
    why = caught.value.why
    assert "model.safetensors on the Hub is not the file that was sent" in why
    assert "its preprocessing differs from the run's" in why
    assert "it names its classes blue, amber, the run amber, blue" in why
    assert "its logits differ from the run's by up to 0.5" in why
    assert caught.value.fix == "take it back: hf repos delete tester/spoilt"


@pytest.mark.parametrize(("backbone", "size"), [("alexnet", 64), ("googlenet", 32)])
@pytest.mark.heavy
def test_alexnet_and_googlenet_are_verified_with_their_plugin(
    server: Server, tmp_path: Path, backbone: str, size: int
) -> None:
    photos = make_images(tmp_path / "photos", {"train": {"amber": 4, "blue": 4}, "test": {"amber": 1, "blue": 1}})
    recipe = zoo.Recipe(**{**RECIPE.record(), "strategy": "scratch", "image_size": size})
    run = zoo.adapt(backbone, str(photos), recipe, out=tmp_path / backbone)
    done = fresh(server, tmp_path, "-m", "zoo", "push", str(run.path), f"tester/{backbone}", "--json")
    assert done.returncode == 0, done.stderr
    module = run.record["backbone"]["module"]
    assert json.loads(done.stdout)["proof"]["module"] == module

    kept, classes = load_file(run.path / "verify.safetensors"), run.record["dataset"]["classes"]
    done = fresh(
        server, tmp_path, "-c", PLAIN, f"hf-hub:tester/{backbone}", str(run.path / "verify.safetensors"), module
    )
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["labels"] == classes
    assert torch.allclose(torch.tensor(plain["logits"]), kept["logits"], atol=1e-4)

    Image.fromarray(kept["raw.00"].numpy()).save(tmp_path / "image.png")
    done = fresh(server, tmp_path, "-c", PIPELINE, f"tester/{backbone}", "image.png", module)
    assert done.returncode == 0, done.stderr
    found = {row["label"]: row["score"] for row in json.loads(done.stdout.splitlines()[-1])}
    assert found == pytest.approx(dict(zip(classes, kept["logits"][0].softmax(0).tolist(), strict=True)), abs=1e-3)

    card = (server.root / "models/tester" / backbone / "README.md").read_text()
    assert "pip install adaptzoo-legacy" in card and "import adaptzoo_legacy.models  # registers" in card
