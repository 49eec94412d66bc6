"""Commands that only look things up start fast: they import nothing heavy, whatever is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "timm", "torchvision", "datasets", "accelerate", "numpy", "pandas", "sklearn", "matplotlib",
         "huggingface_hub")  # fmt: skip
CHECK = f"""
import sys
from zoo.cli.main import run
code = run(sys.argv[1:])
loaded = sorted(name for name in {HEAVY} if name in sys.modules)
print("LOADED", loaded, file=sys.stderr)
sys.exit(code)
"""


def run(*words: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHECK, *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=cwd)


@pytest.fixture(scope="module")
def heavy_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third party's plugin, installed as files, that imports torch at its top."""
    site = tmp_path_factory.mktemp("site")
    package = site / "zoo_heavy"
    package.mkdir()
    for name in ("__init__.py", "models.py"):
        (package / name).write_text("import torch\nimport timm\n")
    (package / "zoo.yaml").write_text(
        "api: 1\nname: heavy\nsummary: imports torch at its top\nmodule: zoo_heavy.models\n"
        "groups:\n  - {name: stem, match: 'conv\\.'}\n  - {name: head, match: 'fc\\.'}\n"
        "backbones:\n  - name: heavynet\n    arch: heavynet\n    params: 10\n    input: 32\n    weights: []\n"
    )
    info = site / "zoo_heavy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-heavy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\nheavy = zoo_heavy:zoo.yaml\n")
    (info / "RECORD").write_text("")
    return site


@pytest.mark.parametrize(
    "words",
    ["list", "list --json", "list resnet*", "--help", "adapt --help", "show resnet50", "show heavynet", "plugins list",
     "datasets", "runs"],
)  # fmt: skip
def test_nothing_heavy_is_imported(words, heavy_plugin, tmp_path):
    env = {"PYTHONPATH": os.pathsep.join([str(heavy_plugin), os.environ.get("PYTHONPATH", "")])}
    done = run(*words.split(), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("LOADED []\n"), done.stderr
    if words in ("list", "list --json", "plugins list"):
        assert "heavy" in done.stdout  # the plugin was there all the time


def test_the_check_can_fail(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import numpy\n")
    done = run("--version", env={"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])})
    assert "LOADED ['numpy']" in done.stderr


def test_importing_zoo_and_its_command_line_is_light():
    names = (*HEAVY, "rich")
    code = f"import sys, zoo, zoo.__main__, zoo.cli.main; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_python_m_zoo_is_zoo():
    done = subprocess.run([sys.executable, "-m", "zoo", "list", "alexnet", "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)[0]["full_name"] == "legacy/alexnet"
    wrong = subprocess.run([sys.executable, "-m", "zoo", "lst"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "list" in wrong.stderr
