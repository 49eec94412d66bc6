"""Listing and choosing load no heavy library, whatever plugins are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "timm", "torchvision", "datasets", "accelerate", "numpy", "sklearn", "pandas", "matplotlib", "PIL")
REPORT = f"""
import json, sys
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("LOADED " + json.dumps(heavy), file=sys.stderr)
"""


def run(code: str, *path: Path) -> tuple[str, list[str]]:
    """Run code in a process of its own; its standard output, and what heavy libraries it loaded."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in (*path, ROOT))}
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("LOADED ")]
    return done.stdout, json.loads(line.removeprefix("LOADED "))


@pytest.fixture
def greedy(tmp_path):
    """A third-party plugin whose package imports torch and timm at its top."""
    package = tmp_path / "zoo_greedy"
    package.mkdir()
    (package / "__init__.py").write_text("import torch, timm\n")
    (package / "zoo.yaml").write_text(
        "api: 1\nname: greedy\nmodule: zoo_greedy\ngroups: [{name: head, match: ''}]\n"
        "backbones: [{name: hungry, arch: hungry, params: 1, input: 8}]\n"
    )
    info = tmp_path / "zoo_greedy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-greedy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\ngreedy = zoo_greedy:zoo.yaml\n")
    return tmp_path


def test_the_light_half_loads_nothing_heavy():
    code = """
import zoo, zoo.errors, zoo.models.spec, zoo.base.fields, zoo.models.plugins.manifest, zoo.models.lookup
from zoo.base import registry
from zoo.recipes import recipe
from zoo.runs import run_folder
zoo.backbones(); zoo.Recipe().expand(); registry.load(); run_folder.list_runs(run_folder.Path("runs"))
dir(zoo); zoo.Run; zoo.ZooError; zoo.adapt; zoo.Comparison
"""
    assert run(code)[1] == []


def test_adapting_does_not_wait_for_statistics_that_few_runs_need():
    loaded = run("from zoo.runs import train; from zoo.studies import align_auto; from zoo.studies.rank import auto")[1]
    assert "torch" in loaded
    assert not {"sklearn", "pandas", "matplotlib", "datasets"} & set(loaded)


def test_a_plugin_that_imports_torch_at_its_top_stays_unimported(greedy):
    code = """
import sys, zoo
assert "hungry" in [spec.name for spec in zoo.backbones()]
assert zoo.get("hungry").full_name == zoo.get("greedy/hungry").full_name == "greedy/hungry"
assert "zoo_greedy" not in sys.modules
"""
    assert run(code, greedy)[1] == []


@pytest.mark.parametrize(
    "arguments", [["list", "--json"], ["list"], ["--help"], ["plugins", "list"], ["adapt", "--help"]]
)
def test_commands_that_only_list_load_nothing_heavy(greedy, arguments):
    code = f"""
import sys
sys.argv = ["zoo", *{arguments!r}]
from zoo.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
assert "zoo_greedy" not in sys.modules
"""
    output, heavy = run(code, greedy)
    assert heavy == []
    if arguments == ["list", "--json"]:
        assert "greedy" in [row["plugin"] for row in json.loads(output)]


def test_the_deny_list_can_fail():
    assert run("import numpy")[1] == ["numpy"]
