"""What is seen in a wheel's list of files; tests/e2e/test_plugins.py installs for real."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.e2e.sites import MANIFEST, plugin_wheel
from zoo.errors import PluginError
from zoo.models.plugins import install

START, DATA = "Python would run its ", "zoo_fir-1.0.data"


def with_files(folder: Path, *names: str) -> Path:
    files = {"zoo_fir/zoo.yaml": MANIFEST.format(name="fir", backbone="fir1"), **dict.fromkeys(names, "")}
    return plugin_wheel(folder, "fir", files=files)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("torch/hack.py", "the package 'torch', which belongs to torch"),
        ("Torch/hack.py", "the package 'torch', which belongs to torch"),  # one folder on some file systems
        ("typing_extensions.py", "'typing_extensions', which belongs to typing-extensions"),
        ("_pytest/hack.py", "the package '_pytest', which belongs to pytest"),  # nothing that adaptzoo runs on
        ("zoo/hack.py", "the package 'zoo', which belongs to adaptzoo"),
        ("zoo_fir/../torch/hack.py", "the package 'torch'"),
        (f"{DATA}/purelib/torch/hack.py", "the package 'torch'"),
        (f"{DATA}/data/lib/python3.11/site-packages/torch/hack.py", "the package 'torch'"),
        ("fir.pth", f"{START}fir.pth whenever it starts"),
        (f"{DATA}/platlib/fir.pth", f"{START}fir.pth whenever it starts"),
        ("sitecustomize.py", f"{START}sitecustomize.py whenever it starts"),
    ],
)
def test_what_writes_where_it_must_not_is_refused(tmp_path, file, why):
    with pytest.raises(PluginError) as caught:
        install._check_wheel(with_files(tmp_path, file))
    assert caught.value.what == "zoo-fir 1.0 is not installed" and why in caught.value.why
    assert caught.value.fix == "do not trust it: ask its authors why"


@pytest.mark.parametrize("file", ["torch/hack.py", "lib/python3.11/site-packages/torch/hack.py", "fir.pth"])
def test_what_uv_has_unpacked_is_looked_at_as_a_wheel_is(tmp_path, file):
    with zipfile.ZipFile(with_files(tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert install._check_wheel(tmp_path / "unpacked") == ("zoo-fir", "1.0")
    path = tmp_path / "unpacked" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(PluginError, match=r"zoo-fir 1\.0 is not installed"):
        install._check_wheel(tmp_path / "unpacked")


def test_weights_scripts_and_its_own_modules_are_in_order(tmp_path):
    path = with_files(tmp_path, "zoo_fir/weights/fir.pth", "zoo_fir/site-packages.txt", "fir_extra.py",
                      f"{DATA}/scripts/fir", f"{DATA}/data/share/torch/fir.txt")  # fmt: skip
    assert install._check_wheel(path) == ("zoo-fir", "1.0")
