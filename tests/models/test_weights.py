from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file

from zoo.errors import WeightsError
from zoo.models import lookup, weights
from zoo.models.spec import BackboneSpec, Weights

NANO = lookup.get("resnet/resnet_nano")


def spec(arch: str, *records: Weights) -> BackboneSpec:
    return BackboneSpec(
        name=arch,
        plugin="sample",
        arch=arch,
        params=None,
        input=None,
        weights=records,
        groups=(),
        module=None,
        distribution="sample-plugin",
        version="1.0",
    )


def tensors_of(arch: str, num_classes: int = 4) -> dict[str, torch.Tensor]:
    return timm.create_model(arch, num_classes=num_classes).state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(metadata: dict[str, str], tensors: dict[str, torch.Tensor] | None = None) -> Path:
        path = tmp_path / "mine.safetensors"
        save_file(tensors or tensors_of("test_resnet"), path, metadata=metadata)
        return path

    return write


def test_default_is_the_manifests_first_and_none_is_none() -> None:
    assert weights.resolve_weights(NANO, "default") == NANO.weights[0]
    assert weights.resolve_weights(NANO, "tiny_imagenet") == NANO.weights[0]
    assert weights.resolve_weights(NANO, "none") is None


def test_a_timm_tag_that_the_manifest_does_not_list() -> None:
    found = weights.resolve_weights(NANO, "r160_in1k")
    assert found == Weights(name="r160_in1k", source="timm", license="apache-2.0")


def test_a_backbone_without_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=r"sample/resnet50t has no pretrained weights") as raised:
        weights.resolve_weights(spec("resnet50t"), "default")
    assert "--weights none" in raised.value.fix


def test_an_unknown_tag_suggests_the_nearest() -> None:
    with pytest.raises(WeightsError) as raised:
        weights.resolve_weights(lookup.get("resnet/resnet50"), "a1_in1")
    assert raised.value.what == "resnet/resnet50 has no weights named 'a1_in1'"
    assert raised.value.fix.startswith("try a1_in1k")


@pytest.mark.parametrize("text", ["nowhere.safetensors", "some/folder", "missing.pth"])
def test_a_path_that_is_not_there(text: str) -> None:
    with pytest.raises(WeightsError, match=f"there is no weights file {text}"):
        weights.resolve_weights(NANO, text)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no weights to start from") as raised:
        weights.resolve_weights(NANO, str(tmp_path))
    assert raised.value.why == "it needs config.json and model.safetensors"


def test_a_files_own_metadata_becomes_the_record(file: Callable[..., Path]) -> None:
    path = file(
        {
            "architecture": "test_resnet",
            "num_classes": "4",
            "input_size": "64",
            "mean": "[0.1, 0.2, 0.3]",
            "std": "[0.4, 0.5, 0.6]",
            "crop_pct": "0.9",
            "interpolation": "bilinear",
            "model_args": '{"drop_path_rate": 0.1}',
            "license": "mit",
            "labels": '["a", "b", "c", "d"]',
            "recipe": "not a key of ours",
        }
    )
    found = weights.resolve_weights(NANO, str(path))
    assert found == Weights(
        name="mine",
        source="file",
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        num_classes=4,
        input=64,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        crop_pct=0.9,
        interpolation="bilinear",
        model_args={"drop_path_rate": 0.1},
        license="mit",
        labels=("a", "b", "c", "d"),
    )


def test_a_file_for_another_architecture_names_both(file: Callable[..., Path]) -> None:
    path = file({"architecture": "resnet18"})
    with pytest.raises(WeightsError) as raised:
        weights.resolve_weights(NANO, str(path))
    assert "for the architecture resnet18, but resnet/resnet_nano is a test_resnet" in raised.value.what
    assert "timm/resnet18" in raised.value.fix


def test_metadata_that_makes_no_sense(file: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match=r"the metadata of .* cannot be understood"):
        weights.resolve_weights(NANO, str(file({"num_classes": "many"})))


def test_a_run_folder(tmp_path: Path) -> None:
    config = {
        "architecture": "test_resnet",
        "num_classes": 2,
        "label_names": ["ant", "bee"],
        "model_args": {"num_classes": 2, "in_chans": 1},
        "pretrained_cfg": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.25], "crop_pct": 1.0},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors_of("test_resnet"), tmp_path / "model.safetensors")
    found = weights.resolve_weights(NANO, str(tmp_path))
    assert found is not None
    assert (found.num_classes, found.input, found.mean, found.labels) == (2, 32, (0.5,), ("ant", "bee"))
    assert found.model_args == {"in_chans": 1}
    assert found.path == str(tmp_path / "model.safetensors")


def test_a_damaged_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture"')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"config\.json is not the config\.json of a timm model"):
        weights.resolve_weights(NANO, str(tmp_path))


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"a": torch.ones(2).half(), "b": torch.ones(2, dtype=torch.int64)}, path)
    found = weights.read_tensors(path)
    assert found["a"].dtype == torch.float32
    assert found["b"].dtype == torch.int64


def test_a_training_checkpoint_is_unwrapped(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": {"module.a": torch.ones(2)}}, path)
    assert list(weights.read_tensors(path)) == ["a"]


def test_the_hash_is_checked_before_the_file_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "any.pth"
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match="is not the file it should be") as raised:
        weights.read_tensors(path, sha256="0" * 64)
    assert "expected " + "0" * 64 in raised.value.why


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"a": SimpleNamespace(x=1)}, path)
    with pytest.raises(WeightsError, match="cannot be read as a file of tensors") as raised:
        weights.read_tensors(path)
    assert "weights_only" in raised.value.why


def test_a_cut_off_file(file: Callable[..., Path]) -> None:
    path = file({})
    path.write_bytes(path.read_bytes()[:5000])
    for read in (lambda: weights.read_tensors(path), lambda: weights.resolve_weights(NANO, str(path))):
        with pytest.raises(WeightsError, match=r"is not a whole \.safetensors file"):
            read()


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="holds no named tensors"):
        weights.read_tensors(tmp_path / "empty.pth")


def test_offline_says_which_file_which_variable_and_how_to_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    resnet = lookup.get("resnet/resnet18")
    with pytest.raises(WeightsError) as raised:
        weights.fetch_tensors(resnet, resnet.weights[0], {"hf_hub_id": "timm/resnet18.a1_in1k"})
    error = raised.value
    assert error.what == (
        "the weights 'a1_in1k' of resnet/resnet18 cannot be reached (the Hub repository timm/resnet18.a1_in1k)"
    )
    assert error.why == "HF_HUB_OFFLINE is set, and the file is not in the local cache"
    assert "unset HF_HUB_OFFLINE" in error.fix
    assert "`hf download timm/resnet18.a1_in1k --local-dir resnet18.a1_in1k`" in error.fix
    assert "`--weights resnet18.a1_in1k`" in error.fix
    assert "`--weights none`" in error.fix


def response(status: int) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("failure", "why", "fix"),
    [
        (GatedRepoError("x", response=response(403)), "the repository is gated", "hf auth login"),
        (RepositoryNotFoundError("x", response=response(404)), "no such repository", "check the name"),
        (EntryNotFoundError("x"), "has no model.safetensors", "a repository of a timm model"),
        (LocalEntryNotFoundError("no route"), "did not give it: no route", "HF_ENDPOINT"),
        (ConnectionResetError("cut off"), "did not give it: cut off", "hf download"),
    ],
)
def test_every_way_the_hub_fails(monkeypatch: pytest.MonkeyPatch, failure: Exception, why: str, fix: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with (
        pytest.raises(WeightsError, match="cannot be reached") as raised,
        weights.network_errors(NANO, NANO.weights[0], repo="someone/model"),
    ):
        raise failure
    assert why in raised.value.why
    assert fix in raised.value.fix


def test_a_hub_reference_without_an_owner() -> None:
    with pytest.raises(WeightsError, match="hf-hub:resnet18 is not hf-hub:ORG/NAME"):
        weights.resolve_weights(NANO, "hf-hub:resnet18")


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    httpd.server_close()


def test_a_url_is_fetched_once_and_its_marked_hash_checked(server: tuple[str, Path]) -> None:
    address, folder = server
    torch.save({"a": torch.ones(2)}, folder / "plain.pth")
    data = (folder / "plain.pth").read_bytes()
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(data)
    record = Weights(name="w", source="url", url=f"{address}/{name}")
    assert torch.equal(weights.fetch_tensors(NANO, record, {})["a"], torch.ones(2))
    (folder / name).unlink()
    assert torch.equal(weights.fetch_tensors(NANO, record, {})["a"], torch.ones(2)), "the second time from the cache"

    (folder / "net-00000000.pth").write_bytes(data)
    wrong = Weights(name="w", source="url", url=f"{address}/net-00000000.pth")
    for _ in range(2):  # a file with the wrong hash must not stay in the cache
        with pytest.raises(WeightsError, match="gave another file") as raised:
            weights.fetch_tensors(NANO, wrong, {})
        assert "expected 00000000" in raised.value.why


@pytest.mark.parametrize("name", ["gone.pth", None])
def test_a_url_out_of_reach(server: tuple[str, Path], name: str | None) -> None:
    url = f"{server[0]}/{name}" if name else "http://127.0.0.1:9/net.pth"
    with pytest.raises(WeightsError, match="cannot be reached") as raised:
        weights.fetch_tensors(NANO, Weights(name="w", source="url", url=url), {})
    assert f"download {url} on a machine with network" in raised.value.fix
    assert "--weights FILE" in raised.value.fix
