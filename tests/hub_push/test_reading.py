"""Models on the Hub, named where a run could be."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import zoo
from tests.hub_push.conftest import Client
from zoo.errors import HubError, PluginError
from zoo.run import Run


@pytest.fixture
def there(client: Client, run: Run) -> Path:
    assert client.push(run.path, "tester/tints").code == 0
    return client.hub.root / "models/tester/tints"


@pytest.mark.parametrize("name", ["tester/tints", "hf-hub:tester/tints", "hf-hub:tester/tints@main"])
def test_it_is_a_model_with_its_classes_and_transform(there: Path, run: Run, name: str) -> None:
    model: Any = zoo.load(name)
    assert model.class_names == ("amber", "blue") and not model.training and model.transform is not None


def test_a_missing_plugin_is_named_and_never_imported(there: Path) -> None:
    config = json.loads((there / "config.json").read_text())
    config["zoo"]["requires"] = {"distribution": "adaptzoo-fir", "version": "2.0", "module": "antigravity"}
    (there / "config.json").write_text(json.dumps(config))
    with pytest.raises(PluginError) as caught:
        zoo.load("hf-hub:tester/tints")
    assert caught.value.what == "the model hf-hub:tester/tints needs the plugin adaptzoo-fir 2.0"
    assert caught.value.fix == "zoo plugins install adaptzoo-fir"
    import sys

    assert "antigravity" not in sys.modules


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
    client.hub.stop()
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the library's own patience
    assert zoo.load("hf-hub:tester/tints") is not None
    with pytest.raises(HubError, match="cannot be had") as caught:
        zoo.load("hf-hub:tester/absent")
    assert "(HF_ENDPOINT) cannot be reached" in caught.value.why


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
