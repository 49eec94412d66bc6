"""Wheels hold what they must, and installing never asks an index for a name of ours.

Third-party packages are lent to each fresh environment as links to those of the running one, so that nothing is
downloaded; the only index is a server here that has nothing and writes down what it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="builds wheels; `make install` brings it")
pytest.importorskip("pip")

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
PROJECTS = [ROOT, *PLUGINS]
OURS = re.compile(r"_?adaptzoo", re.IGNORECASE)


class Index:
    """An index that has no package at all, and the paths that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    thread = threading.Thread(target=index.server.serve_forever, daemon=True)
    thread.start()
    yield index
    index.server.shutdown()
    index.server.server_close()
    thread.join()


def environment() -> dict[str, str]:
    """Nothing of the caller's pip settings or paths."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
    return {**clean, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of every project, by its distribution's name."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    run(sys.executable, "-m", "pip", "wheel", *options, folder, *PROJECTS, cwd=folder)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The running environment's packages without ours, as links."""
    folder = tmp_path_factory.mktemp("third-party")
    for name in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for entry in Path(name).iterdir():
            if not OURS.match(entry.name) and entry.name != "zoo" and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def fresh(tmp_path: Path, third_party: Path) -> Path:
    """A new environment that has third-party packages only; its bin folder."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (purelib,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (purelib / "third-party.pth").write_text(f"{third_party}\n")
    return tmp_path / "env" / "bin"


def pip(bin: Path, index: Index, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    python = bin / "python"
    return run(
        sys.executable, "-m", "pip", "--python", python, "install", "--retries", "0", "--no-cache-dir",
        "--index-url", index.url, *arguments, cwd=bin, code=code,
    )  # fmt: skip


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_project_builds_one_wheel(wheels):
    assert set(wheels) == {"adaptzoo", *(folder.name for folder in PLUGINS)}
    assert len(wheels) >= 5


def test_the_core_wheel_holds_all_of_the_package_and_nothing_else(wheels):
    found = contents(wheels["adaptzoo"])
    files = (ROOT / "zoo").rglob("*")
    mine = {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and "__pycache__" not in path.parts}
    assert mine <= found, "a file of zoo/ is not in the wheel"
    assert {"zoo/registry.yaml", "zoo/py.typed"} <= found
    assert any(name.startswith("zoo/runs/report/") and name.endswith((".j2", ".jinja", ".html")) for name in found)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found)
    others = {name for name in found - mine - {"zoo/registry.yaml"} if ".dist-info/" not in name}
    assert not others
    with zipfile.ZipFile(wheels["adaptzoo"]) as archive:
        assert archive.read("zoo/registry.yaml") == (ROOT / "registry.yaml").read_bytes()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugins_wheel_holds_its_manifest_and_weights_and_no_tests(wheels, folder):
    found = {name for name in contents(wheels[folder.name]) if ".dist-info/" not in name}
    package = folder.name.replace("-", "_")
    assert f"{package}/zoo.yaml" in found
    assert {name.partition("/")[0] for name in found} == {package}
    assert not [name for name in found if "test" in name.rpartition("/")[2].lower()]
    with zipfile.ZipFile(wheels[folder.name]) as archive:
        manifest = archive.read(f"{package}/zoo.yaml").decode()
    for path, sha256 in re.findall(r"source: file, path: ([^,\s]+),\s*sha256: ([0-9a-f]{64})", manifest):
        with zipfile.ZipFile(wheels[folder.name]) as archive:
            assert hashlib.sha256(archive.read(f"{package}/{path}")).hexdigest() == sha256


def test_the_embedded_backbone_is_in_its_wheel(wheels):
    assert "adaptzoo_resnet/weights/resnet_nano.safetensors" in contents(wheels["adaptzoo-resnet"])


CHECK = """
import json, sys
from pathlib import Path
import zoo
from zoo.base import registry
print(json.dumps({
    "package": str(Path(zoo.__file__).parent),
    "datasets": sorted(registry.load().datasets),
    "plugins": sorted({spec.plugin for spec in zoo.backbones()}),
    "weights": [w.path for w in zoo.get("resnet_nano").weights],
    "heavy": [name for name in ("torch", "timm") if name in sys.modules],
}))
"""


def check(bin: Path, package: Path) -> None:
    """The installation works as a person would use it, from any folder."""
    elsewhere = bin.parent / "elsewhere"
    elsewhere.mkdir()
    facts = json.loads(run(bin / "python", "-c", CHECK, cwd=elsewhere).stdout)
    assert Path(facts["package"]) == package
    assert {"digits", "cifar10", "imagenet-1k"} <= set(facts["datasets"]), "registry.yaml did not come with it"
    assert {"resnet", "vgg", "legacy"} <= set(facts["plugins"])
    assert facts["weights"] and all(Path(path).is_file() for path in facts["weights"])
    assert facts["heavy"] == []
    rows = json.loads(run(bin / "zoo", "list", "--json", cwd=elsewhere).stdout)
    assert {"resnet_nano", "resnet50", "vgg16_bn", "alexnet", "googlenet"} <= {row["name"] for row in rows}
    rows = json.loads(run(bin / "zoo", "plugins", "list", "--json", cwd=elsewhere).stdout)
    assert {row["distribution"] for row in rows if row["status"] == "ok"} >= {folder.name for folder in PLUGINS}


def test_local_wheels_install_together_and_no_name_of_ours_is_looked_up(wheels, fresh, index):
    pip(fresh, index, *wheels.values())
    assert not [path for path in index.asked if OURS.search(path)], "a public index was asked for a name of ours"
    (purelib,) = fresh.parent.glob("lib/python*/site-packages")
    check(fresh, purelib / "zoo")


def test_a_checkout_installs_together_and_no_name_of_ours_is_looked_up(fresh, index):
    editable = [part for project in PROJECTS for part in ("--editable", project)]
    pip(fresh, index, "--no-build-isolation", *editable)
    assert not [path for path in index.asked if OURS.search(path)], "a public index was asked for a name of ours"
    check(fresh, ROOT / "zoo")


def test_without_its_plugins_core_does_ask_and_says_what_is_missing(wheels, fresh, index):
    """The control of the two tests above: asking is what the server would have seen."""
    done = pip(fresh, index, "--dry-run", wheels["adaptzoo"], code=1)
    assert "No matching distribution found for adaptzoo-" in done.stderr
    assert [path for path in index.asked if OURS.search(path)]
