"""Weights and config.json from strangers: nothing in them runs, and nothing that they claim is believed unseen."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.faults.hostile import limited, refused
from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from zoo.errors import WeightsError
from zoo.models import build, lookup, saved, weights
from zoo.models.config_checks import BuildBudget
from zoo.models.tensor_files import file_sha256, read_tensors
from zoo.runs import use as inference
from zoo.training.state.checkpoint import load_checkpoint, save_checkpoint

GOOD = {"x": torch.ones(2)}


def nano() -> Any:
    return lookup.get("resnet_nano")


def use(path: Path) -> Any:
    spec = nano()
    return build.build(spec, weights=weights.resolve_weights(spec, str(path)))


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[object, bytes, int | None]] = {
    "claims 1 TB": ({"x": tensor([1 << 38], 0, 1 << 40)}, b"", None),
    "overlapping offsets": ({"x": tensor([2], 0, 8), "y": tensor([2], 4, 12)}, bytes(12), None),
    "a gap": ({"x": tensor([2], 4, 12)}, bytes(12), None),
    "offsets backwards": ({"x": tensor([2], 8, 0)}, bytes(8), None),
    "shape does not fit": ({"x": tensor([3], 0, 8)}, bytes(8), None),
    "shape overflows": ({"x": tensor([1 << 62, 1 << 62], 0, 8)}, bytes(8), None),
    "negative shape": ({"x": tensor([-2], 0, 8)}, bytes(8), None),
    "a header of 4 EiB": (b"{}", b"", 1 << 62),
    "a header longer than the file": (b"{}", b"", 90_000_000),
    "a header nested 100,000 deep": (b"[" * 100_000, b"", None),
    "an empty header": (b"", b"", None),
    "no header": (b"\xff" * 40, b"", None),
    "5,000 axes": ({"x": tensor([1] * 5000, 0, 4)}, bytes(4), None),
    "an unknown type": ({"x": tensor([1], 0, 1, "F8_E4M3")}, bytes(1), None),
    "no tensors": ({}, b"", None),
    "other names, empty": ({"x": tensor([0, 1 << 60], 0, 0)}, b"", None),
}


@pytest.mark.parametrize("detail", HEADERS)
def test_a_safetensors_header(faults: Try, tmp_path: Path, detail: str) -> None:
    path = raw(tmp_path / "w.safetensors", *HEADERS[detail])
    with refused(faults, "weights", "safetensors header", detail, "w"):
        use(path)


class Runs:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["beside a tensor", "as the whole file", "in a checkpoint's wrapper", "as a key"])
def test_a_pickle_with_code_is_not_run(faults: Try, tmp_path: Path, place: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "w.pth"
    evil = Runs(marker)
    content: Any = {
        "beside a tensor": {**GOOD, "y": evil},
        "as the whole file": evil,
        "in a checkpoint's wrapper": {"state_dict": GOOD, "optimizer": evil},
        "as a key": {evil: GOOD["x"]},
    }[place]
    torch.save(content, path)
    with refused(faults, "weights", "pickle with code", place, "weights_only=True", "mkdir"):
        read_tensors(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file was dangerous"


def test_a_compressed_pth(faults: Try, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(50_000_000)}, tmp_path / "big.pth")
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(tmp_path / "big.pth") as big, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for member in big.infolist():
            small.writestr(member.filename, big.read(member))
    assert path.stat().st_size < 1_000_000
    with refused(faults, "weights", "pth", "a zip bomb", "compressed"):
        read_tensors(path)


def test_a_checkpoint_with_code_or_of_endless_zeros(faults: Try, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(50_000_000)}, tmp_path / "big.pth")
    bomb = tmp_path / "small.pth"
    with zipfile.ZipFile(tmp_path / "big.pth") as big, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as small:
        for member in big.infolist():
            small.writestr(member.filename, big.read(member))
    torch.save({"x": Runs(tmp_path / "ran")}, tmp_path / "evil.pth")
    for file, words in (("small.pth", "compressed"), ("evil.pth", "weights_only")):
        folder = tmp_path / f"checkpoints-{file}"
        path = save_checkpoint(folder, 4, {}, needs={})
        path.write_bytes((tmp_path / file).read_bytes())
        facts = {"sha256": file_sha256(path), "step": 4, "needs": {}}
        path.with_suffix(".json").write_text(json.dumps(facts))
        with faults("weights", "checkpoint", words) as fault, limited():
            state, passed = load_checkpoint(folder)
            assert state is None and len(passed) == 1 and words in passed[0].lower()
            assert not (tmp_path / "ran").exists()
            fault.survived(ONE_ERROR)


VIEWS = {
    "a view that repeats one number": lambda: torch.zeros(1).half().expand(10**11),
    "views that share memory": lambda: {f"x{n}": view for view in [torch.zeros(100_000)] for n in range(100)},
    "a sparse tensor": lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**9,)),  # type: ignore[arg-type]
    "a tensor of no memory": lambda: torch.empty(10**12, device="meta"),
}


@pytest.mark.parametrize("detail", VIEWS)
def test_tensors_that_stand_for_more_than_their_file(faults: Try, tmp_path: Path, detail: str) -> None:
    made: Any = VIEWS[detail]()
    torch.save(made if isinstance(made, dict) else {"x": made}, tmp_path / "w.pth")
    with refused(faults, "weights", "pth", detail, "w.pth"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"PK\x03\x04" + bytes(50), b"GIF89a" * 9, bytes(999)])
def test_a_pth_that_is_none(faults: Try, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with refused(faults, "weights", "pth", f"{content[:8]!r}", "w.pth"):
        read_tensors(tmp_path / "w.pth")


def test_tied_weights_and_old_formats_are_still_read(tmp_path: Path) -> None:
    tied = torch.ones(30_000)
    torch.save({"a": tied, "b": tied, "c": torch.ones(2, dtype=torch.float16)}, tmp_path / "tied.pth")
    assert set(read_tensors(tmp_path / "tied.pth")) == {"a", "b", "c"}
    torch.save({"state_dict": GOOD, "epoch": 3}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "old.pth")["x"].tolist() == [1.0, 1.0]


ARGUMENTS: dict[str, dict[str, Any]] = {
    "another file": {"checkpoint_path": "/tmp/x.pth"},
    "another source": {"pretrained_cfg_overlay": {"url": "http://127.0.0.1/x", "custom_load": True}},
    "another cache": {"cache_dir": "/tmp"},
    "another kind of model": {"features_only": True},
    "any file goes": {"pretrained_strict": False},
    "a thousand layers wide": {"stem_width": 10**6},
    "ten million layers deep": {"layers": [10**7] * 4},
    "channels": {"in_chans": 10**8},
    "a number without end": {"drop_rate": float("inf")},
    "no number": {"layers": "deep"},
    "no block": {"block": "os.system"},
    "a colour": {"act_layer": "\x1b[31m"},
    "a mapping": {"layers": {"a": {"b": {}}}},
    "more values than any": {"layers": [1] * 5000},
}


@pytest.mark.parametrize("detail", ARGUMENTS)
@pytest.mark.parametrize("by", ["metadata", "config.json"])
def test_arguments_of_a_stranger(faults: Try, tmp_path: Path, detail: str, by: str) -> None:
    good = load_file(str(nano().weights[0].path))
    facts = {"architecture": "test_resnet", "model_args": ARGUMENTS[detail]}
    if by == "metadata":
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
        save_file(good, tmp_path / "w.safetensors", metadata=texts)
        with refused(faults, "weights", "model_args in metadata", detail, "w"):
            use(tmp_path / "w.safetensors")
        return
    folder = hub_model(tmp_path / "m", **facts)
    with refused(faults, "hub model", "model_args in config.json", detail, "hf-hub:me/evil"):
        saved.load(folder, "hf-hub:me/evil")


def hub_model(folder: Path, **changes: Any) -> Path:
    """A folder as the Hub's cache has it, of resnet_nano with its own 200 classes."""
    folder.mkdir()
    good = load_file(str(nano().weights[0].path))
    save_file(good, folder / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 200,
              "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3,
                                 "interpolation": "bicubic", "crop_pct": 1.0, "classifier": "fc"}}  # fmt: skip
    for key, value in changes.items():
        if key in config["pretrained_cfg"]:  # type: ignore[operator]
            config["pretrained_cfg"][key] = value  # type: ignore[index]
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CONFIGS: dict[str, dict[str, Any]] = {
    "a billion classes": {"num_classes": 10**9},
    "a million classes": {"num_classes": 999_999},
    "minus one class": {"num_classes": -1},
    "classes in words": {"num_classes": "many"},
    "an unknown architecture": {"architecture": "resnet_of_mine"},
    "an architecture that is a path": {"architecture": "../../etc/passwd"},
    "an architecture on the Hub": {"architecture": "hf-hub:me/other"},
    "an architecture that is markup": {"architecture": "<script>"},
    "no architecture": {"architecture": None},
    "an input of a million pixels a side": {"input_size": [3, 10**6, 10**6]},
    "an input of nothing": {"input_size": [3, 0, 0]},
    "an input of two sides": {"input_size": [64, 64]},
    "a deviation of 0": {"std": [0, 0, 0]},
    "a mean that is none": {"mean": ["a", "b", "c"]},
    "a crop of nothing": {"crop_pct": 0},
    "an unknown interpolation": {"interpolation": "\x1b[2J"},
    "labels that are no texts": {"label_names": [{"a": 1}] * 200},
    "labels of 20,000 characters": {"label_names": ["x" * 20_000] * 200},
    "labels that are a number": {"label_names": 3},
    "a configuration that is a list": {"pretrained_cfg": []},
    "zoo's part is a text": {"zoo": "x"},
    "a module to import": {"zoo": {"requires": {"module": "antigravity", "distribution": "antigravity"}}},
    "a distribution that is an option": {"zoo": {"requires": {"module": "x", "distribution": "--index-url=x"}}},
}


@pytest.mark.parametrize("detail", CONFIGS)
def test_a_config_json(faults: Try, tmp_path: Path, detail: str) -> None:
    folder = hub_model(tmp_path / "m", **CONFIGS[detail])
    with refused(faults, "hub model", "config.json", detail):
        saved.load(folder, "hf-hub:me/evil")


def test_a_config_json_that_is_none(faults: Try, tmp_path: Path) -> None:
    for number, text in enumerate(["", "[" * 100_000, "[]", "null", '{"a": ' * 60 + "1" + "}" * 60, "9" * 5000, "\0"]):
        folder = hub_model(tmp_path / str(number))
        (folder / "config.json").write_text(text)
        with refused(faults, "hub model", "config.json", f"is {text[:6]!r}", "config.json"):
            saved.load(folder)


def test_sources_in_a_config_json_are_not_followed(faults: Try, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"x": Runs(marker)}, tmp_path / "evil.pth")
    for key, value in {
        "file": str(tmp_path / "evil.pth"),
        "url": "http://192.0.2.1/evil.pth",
        "hf_hub_id": "me/evil",
        "custom_load": True,
        "source": "hf-hub",
        "state_dict": {"x": 1},
    }.items():
        folder = hub_model(tmp_path / key)
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"][key] = value
        (folder / "config.json").write_text(json.dumps(config))
        with faults("hub model", "config.json", f"names a {key}") as fault, limited():
            assert saved.load(folder).num_classes == 200  # type: ignore[comparison-overlap]
            assert not marker.exists()
            fault.survived(AS_WITHOUT)


def test_labels_of_a_stranger_are_only_texts(faults: Try, tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "\x1b]0;owned\x07", "a\nb", *(f"class {n}" for n in range(197))]
    folder = hub_model(tmp_path / "m", label_names=names)
    with faults("hub model", "class names", "markup and escapes") as fault:
        assert saved.labels(saved.load(folder), None) == tuple(names)
        fault.survived(AS_WITHOUT)


def test_a_run_whose_parts_do_not_belong_together(faults: Try, tmp_path: Path) -> None:
    folder = hub_model(tmp_path / "run")
    result = dict.fromkeys(("accuracy", "loss", "top5", "macro_f1", "ece"), 0.5) | {
        "n": 3,
        "split": "a",
        "selected_on": "b",
    }
    record = {"schema": 1, "status": "finished", "result": result, "dataset": {"classes": ["a", "b"]}}
    (folder / "run.json").write_text(json.dumps(record))
    with refused(faults, "run folder", "run.json", "two classes for a model of 200", "names 2 classes", "200"):
        inference.open_classifier(folder)


def test_a_network_is_built_within_its_budget() -> None:
    with BuildBudget(nano().params * 4):
        build.build(nano(), weights=None)
    with pytest.raises(RuntimeError, match="far beyond its file"), BuildBudget(1000):
        torch.zeros(10**6, 10**6)
    for make in (
        lambda: torch.arange(10**12),
        lambda: torch.zeros(10**6)[:, None] - torch.zeros(10**6)[None],
        lambda: torch.ones(2).repeat(10**12),
        lambda: torch.ones(10**6).new_zeros(10**12),
        lambda: torch.eye(10**6),
    ):
        with pytest.raises(RuntimeError, match="far beyond its file"), BuildBudget(1000):
            make()


def test_what_a_pth_is_read_with_is_said(tmp_path: Path) -> None:
    torch.save({"x": Runs(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"zoo reads a \.pth with weights_only=True alone, which runs no code"):
        read_tensors(tmp_path / "w.pth")
