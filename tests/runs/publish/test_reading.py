"""Models on the Hub, named where a run could be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from PIL import Image

import zoo
from tests.runs.publish.conftest import Client
from zoo.errors import HubError, PluginError
from zoo.runs.run_folder import Run


@pytest.fixture
def there(client: Client, run: Run) -> Path:
    assert client.push(run.path, "tester/tints").code == 0
    return client.hub.root / "models/tester/tints"


@pytest.mark.parametrize("name", ["tester/tints", "hf-hub:tester/tints", "hf-hub:tester/tints@main"])
def test_it_is_a_model_with_its_classes_and_transform(there: Path, run: Run, name: str) -> None:
    model: Any = zoo.load(name)
    assert model.class_names == ("amber", "blue") and not model.training and model.transform is not None


def test_a_missing_plugin_is_named_and_neither_installed_nor_imported(
    there: Path, client: Client, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module that the model names could be imported, and an installer is at hand: each would leave a mark."""
    mark, tools = tmp_path / "mark", tmp_path / "tools"
    tools.mkdir()
    (tools / "fir_models.py").write_text(f"open({str(mark)!r}, 'a').write('imported')")
    for tool in ("pip", "uv"):
        (tools / tool).write_text(f"#!/bin/sh\necho {tool} >> {mark}\n")
        (tools / tool).chmod(0o755)
    monkeypatch.syspath_prepend(str(tools))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **_: mark.write_text(f"started {words}"))
    config = json.loads((there / "config.json").read_text())
    config["zoo"]["requires"] = {"distribution": "adaptzoo-fir", "version": "2.0", "module": "fir_models"}
    (there / "config.json").write_text(json.dumps(config))
    image = run.path.parent / "image.png"
    Image.new("RGB", (32, 32)).save(image)
    for words in (["predict", "hf-hub:tester/tints", image], ["eval", "hf-hub:tester/tints", "--dataset", "digits"]):
        error = client.zoo(*words, "--json").json["error"]
        assert error["what"] == "the model hf-hub:tester/tints needs the plugin adaptzoo-fir 2.0"
        assert error["fix"] == "zoo plugins install adaptzoo-fir"
    registry = tmp_path / "registry.yaml"
    registry.write_text("plugins: {fir: {requirement: adaptzoo-fir, summary: Firs}}")
    monkeypatch.setenv("ZOO_REGISTRY", str(registry))
    with pytest.raises(PluginError) as caught:
        zoo.load("hf-hub:tester/tints")
    assert caught.value.fix == "zoo plugins install fir", "the catalogue's own name for it"
    assert "fir_models" not in sys.modules and not mark.exists()


def test_a_repository_with_a_pickle_alone_is_refused(there: Path) -> None:
    (there / "model.safetensors").rename(there / "pytorch_model.bin")
    with pytest.raises(HubError, match="tester/tints holds no timm model") as caught:
        zoo.load("hf-hub:tester/tints")
    assert caught.value.why == "it has no model.safetensors, and zoo loads no pickles"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf-hub:tester/absent", "has no model tester/absent, or it is private"),
        ("hf-hub:tester/tints@v9", "tester/tints has no such revision"),
    ],
)
def test_what_is_not_there_is_said(there: Path, name: str, why: str) -> None:
    with pytest.raises(HubError) as caught:
        zoo.load(name)
    assert why in caught.value.why and caught.value.fix


def test_offline_it_takes_the_cache_and_says_what_it_lacks(
    there: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.load("hf-hub:tester/tints")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(client.hub.requests)
    assert zoo.load("hf-hub:tester/tints") is not None
    with pytest.raises(HubError, match="the model tester/absent cannot be had") as caught:
        zoo.load("hf-hub:tester/absent")
    assert caught.value.why == "HF_HUB_OFFLINE is set, and it is not in the cache"
    assert "hf download tester/absent" in caught.value.fix
    assert len(client.hub.requests) == before


def test_a_hub_that_is_gone_leaves_the_cache(there: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.load("hf-hub:tester/tints")
    found = client.hub.repos.find("models", "tester/tints")
    assert found is not None
    head = found.head().sha
    client.hub.stop()
    waited: list[float] = []
    monkeypatch.setattr("zoo.models.hub_client.FIRST_WAIT", 1.0)
    monkeypatch.setattr("zoo.models.hub_client.sleep", waited.append)
    started = time.monotonic()
    image = there.parent / "image.png"
    Image.new("RGB", (32, 32)).save(image)
    done = client.zoo("predict", "hf-hub:tester/tints", image)
    assert done.code == 0 and f"tester/tints is used as it was when last fetched, commit {head[:12]}" in done.err
    assert "note: the Hub cannot be reached; trying again in " in done.err
    with pytest.raises(HubError, match="cannot be had") as caught:
        zoo.load("hf-hub:tester/absent")
    assert "(HF_ENDPOINT) cannot be reached" in caught.value.why
    assert 0 < sum(waited) <= 10, "a few seconds each time"
    assert time.monotonic() - started < 20, "and the library waits for nobody"


def test_a_typing_error_in_a_path_or_a_backbone_asks_no_hub(client: Client, run: Run, monkeypatch: Any) -> None:
    monkeypatch.chdir(run.path.parent)
    (run.path.parent / "runs").mkdir()
    for name in ("runs/tnits", "resnet/resnet5O"):
        with pytest.raises(PluginError):
            zoo.load(name)
    assert not client.hub.requests


def test_a_server_error_is_tried_again(there: Path, client: Client) -> None:
    order = client.hub.fail("GET /tester/tints/resolve/.*/model.safetensors", status=500)
    assert zoo.load("hf-hub:tester/tints") is not None
    assert order.hits == 1
