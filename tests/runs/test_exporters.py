from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.pictures import four
from zoo.errors import RunError
from zoo.runs import export as folder
from zoo.runs import exporters

NPZ = """
import numpy as np

from zoo.runs.exporters import Exporter


def write(opened, path):
    arrays = {name: tensor.numpy() for name, tensor in opened.model.state_dict().items()}
    with path.open("wb") as file:
        np.savez(file, classes=opened.classes, **arrays)


EXPORTER = Exporter(".npz", write)
"""
BROKEN = """
from zoo.runs.exporters import Exporter


def write(opened, path):
    path.write_bytes(b"half")
    raise RuntimeError("no such operator")


EXPORTER = Exporter(".bin", write)
"""
AWAY = """
from zoo.runs.exporters import Exporter

EXPORTER = Exporter(".x", print, modules=("json", "no_such_module"))
"""


@pytest.fixture(autouse=True)
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three formats, each added by one file."""
    for name, text in {"npz": NPZ, "broken": BROKEN, "away": AWAY}.items():
        (tmp_path / "more").mkdir(exist_ok=True)
        (tmp_path / "more" / f"{name}.py").write_text(text)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path / "more")])


def test_one_file_adds_a_format(tmp_path: Path) -> None:
    run = zoo.adapt("resnet_nano", four(tmp_path / "photos", 4), zoo.Recipe(strategy="probe", epochs=1, image_size=32),
                    out=tmp_path / "run", progress=False)  # fmt: skip
    path = exporters.export(run, "npz", tmp_path / "model")
    assert path == tmp_path / "model.npz"
    arrays = np.load(path)
    assert arrays["classes"].tolist() == ["amber", "blue", "green", "red"]
    for name, tensor in zoo.load(run).state_dict().items():
        assert torch.equal(torch.from_numpy(arrays[name]), tensor), name


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out.bin").write_bytes(b"as before")
    with pytest.raises(RuntimeError, match="no such operator"):
        exporters.export("resnet_nano", "broken", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == b"as before" and not list(tmp_path.glob(".*"))


def test_an_unknown_format_and_one_without_its_library_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no export format named 'onyx'") as error:
        exporters.export("resnet_nano", "onyx", tmp_path / "out")
    assert "npz" in str(error.value.fix)
    with pytest.raises(RunError, match="away files are written with no_such_module, not installed here"):
        exporters.export("resnet_nano", "away", tmp_path / "out")
