"""Plugins by anybody, with real installations: in, listed, checked, used, out again; and what must not come in."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import blocks
from tests.e2e.sites import MANIFEST, ROOT, Site, plugin_wheel, wheel
from tests.forks import LIGHT
from tests.hub.server import Server

pytest.importorskip("hatchling", reason="builds wheels; `make install` brings it")
pytest.importorskip("pip")

TINY = ("--dataset", "digits", "--weights", "none", "--strategy", "scratch", "--epochs", 1, "--train-per-class", 2)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One environment for the module; every test leaves it as it was."""
    made = Site.make(tmp_path_factory.mktemp("site") / "env")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest):
    """What a test installs, it removes without a trace."""
    if "site" not in request.fixturenames:
        yield
        return
    site = request.getfixturevalue("site")
    before = site.contents()
    yield
    assert site.contents() - before == set()


def build(site: Site, folder: str, into: Path) -> Path:
    """Build a wheel as an author does."""
    site.run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into, site.root / folder)
    return next(into.glob("*.whl"))


def pushed(site: Site, hub: Server, run: str, repo: str) -> dict[str, Any]:
    """Push a run to the Hub of the test and return what is printed."""
    hub.people.add_user("me")
    token = hub.people.add_token("me", "write")
    environment = {**hub.environment(token=token), "HF_HOME": str(site.root / "hub")}
    found: dict[str, Any] = json.loads(site.zoo("push", run, repo, "--json", **environment).stdout)
    return found


def test_a_new_plugin_goes_all_the_way_and_leaves_nothing(site, tmp_path, hub):
    site.zoo("plugins", "new", "fir", "--module")
    built = build(site, "adaptzoo-fir", tmp_path)
    done = site.zoo("plugins", "install", built, "--yes")
    assert done.stdout.startswith("installed adaptzoo-fir 0.1.0\nplugin fir: fir_tiny\n")
    assert "runs with all of your rights; nothing keeps it in a sandbox" in done.stderr
    assert site.listed()["adaptzoo-fir"] == {
        "name": "fir", "distribution": "adaptzoo-fir", "version": "0.1.0", "status": "ok", "error": None,
        "backbones": ["fir_tiny"], "summary": "say in one line what this plugin offers",
    }  # fmt: skip
    assert "code      the module adaptzoo_fir.models" in site.zoo("plugins", "show", "fir").stdout
    checked = site.zoo("plugins", "check", "fir", "--fast").stdout
    assert "FAIL" not in checked and checked.endswith("1 backbone of 1 keeps the contracts\n")
    site.zoo("adapt", "fir_tiny", *TINY, "--out", "runs/fir", whole=True)
    assert pushed(site, hub, "runs/fir", "me/fir")["verified"]
    site.zoo("plugins", "uninstall", "fir", "--yes")
    assert site.listed() == {}
    fault = site.fault("eval", "runs/fir")
    assert "needs the plugin adaptzoo-fir 0.1.0" in fault["what"]
    assert fault["fix"] == "zoo plugins install adaptzoo-fir"


def test_a_manifest_only_plugin_installs_from_its_folder_and_passes_its_test(site):
    site.zoo("plugins", "new", "oak")
    done = site.zoo("plugins", "install", "adaptzoo-oak/", "--yes")
    assert "building it runs its code before it can be looked at" in done.stderr
    site.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "adaptzoo-oak")
    # The same version again: an author has changed the files.
    manifest = site.root / "adaptzoo-oak" / "adaptzoo_oak" / "zoo.yaml"
    manifest.write_text(manifest.read_text().replace("oak_tiny", "oak_small"))
    site.zoo("plugins", "install", "adaptzoo-oak/", "--yes")
    assert site.listed()["adaptzoo-oak"]["backbones"] == ["oak_small"]
    site.zoo("plugins", "uninstall", "adaptzoo-oak", "--yes")


@pytest.mark.heavy
def test_the_plugin_of_the_page_is_made_from_what_the_page_shows(site, hub):
    files = {block.file: block.text for block in blocks(ROOT / "docs" / "write-a-plugin.md") if block.file}
    for name, text in files.items():
        path = site.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    fault = site.fault("adapt", "squeezenet1_1", *TINY)
    assert "squeezenet1_1 is in the plugin squeezenet, which is not installed" in fault["why"]
    assert "zoo plugins install PATH" in fault["fix"]
    site.zoo("plugins", "install", "adaptzoo-squeezenet/", "--yes")
    assert site.listed()["adaptzoo-squeezenet"]["status"] == "ok"
    site.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "adaptzoo-squeezenet")
    assert "2 backbones of 2 keep the contracts" in site.zoo("plugins", "check", "squeezenet", "--fast").stdout
    site.zoo("adapt", "squeezenet1_1", *TINY, "--image-size", 64, "--out", "runs/squeezenet")
    assert pushed(site, hub, "runs/squeezenet", "me/squeezenet")["verified"]
    site.zoo("plugins", "uninstall", "squeezenet", "--yes")


def test_broken_plugins_of_every_kind_break_no_other_command_and_can_be_removed(site, tmp_path):
    def tree(name: str) -> Path:
        return plugin_wheel(tmp_path, name, manifest=MANIFEST.format(name=name, backbone="tree"))

    raising = MANIFEST.format(name="raising", backbone="raising1") + "module: zoo_raising.models\n"
    site.pip(
        plugin_wheel(tmp_path, "yaml", manifest="api: ["),
        plugin_wheel(tmp_path, "absent", files={"zoo_absent/__init__.py": ""}),
        plugin_wheel(tmp_path, "raising", files={
            "zoo_raising/__init__.py": "", "zoo_raising/models.py": "raise RuntimeError('no luck')\n",
            "zoo_raising/zoo.yaml": raising}),
        plugin_wheel(tmp_path, "twin", distribution="zoo-twin-a"),
        plugin_wheel(tmp_path, "twin", distribution="zoo-twin-b"),
        plugin_wheel(tmp_path, "other", manifest=MANIFEST.format(name="another", backbone="other1")),
        plugin_wheel(tmp_path, "later", manifest="api: 2\nname: later\n"),
        tree("elm"), tree("ash"), *(plugin_wheel(tmp_path, f"half{part}") for part in "abc"),
    )  # fmt: skip
    shutil.rmtree(site.packages / "zoo_halfa")
    (site.packages / "zoo_halfb-1.0.dist-info" / "METADATA").unlink()
    (site.packages / "zoo_halfb" / "zoo.yaml").unlink()
    (site.packages / "zoo_halfc-1.0.dist-info" / "RECORD").unlink()
    rows = site.listed()
    causes = {
        "zoo-yaml": "is not valid YAML", "zoo-absent": "has no file 'zoo.yaml'",
        "zoo-twin-a": "its name is claimed by zoo-twin-a 1.0 and zoo-twin-b 1.0",
        "zoo-twin-b": "its name is claimed by zoo-twin-a 1.0 and zoo-twin-b 1.0",
        "zoo-other": "name: is 'another', but the entry point is named 'other'",
        "zoo-later": "asks for plugin api 2", "zoo-halfa": "the package 'zoo_halfa' is not there",
        "zoo-halfb": "has no file 'zoo.yaml'",
    }  # fmt: skip
    assert {name for name, row in rows.items() if row["status"] != "ok"} == set(causes)
    assert all(text in rows[name]["error"] for name, text in causes.items())
    assert rows["zoo-later"]["status"] == "incompatible"

    listed = site.zoo("list")
    assert "resnet50" in listed.stdout
    assert len(listed.stderr.splitlines()) == len(causes), "one line for each"
    assert "resnet/resnet50" in site.zoo("show", "resnet50").stdout
    site.zoo("adapt", "resnet_nano", *TINY, "--out", "runs/nano")
    assert (
        site.fault("show", "tree")["what"]
        == "'tree' is offered by two plugins: zoo-ash (ash/tree) and zoo-elm (elm/tree)"
    )
    assert "ash/tree" in site.zoo("show", "ash/tree").stdout
    checked = site.zoo("plugins", "check", "raising", "--fast", code=1)
    assert "importing zoo_raising.models from zoo-raising 1.0 failed" in checked.stdout
    assert site.fault("plugins", "uninstall", "twin", "--yes")["fix"] == (
        "zoo plugins uninstall zoo-twin-a or zoo plugins uninstall zoo-twin-b")  # fmt: skip

    names = [
        "yaml",
        "absent",
        "raising",
        "zoo-twin-a",
        "twin",
        "other",
        "later",
        "elm",
        "ash",
        "halfa",
        "halfb",
        "halfc",
    ]
    for name in names:
        site.zoo("plugins", "uninstall", name, "--yes")
    assert site.listed() == {}


def test_what_cannot_be_used_is_refused_and_leaves_nothing(site, tmp_path):
    def refused(path: object, what: str, why: str = "", fix: str = "") -> None:
        before = site.contents()
        fault = site.fault("plugins", "install", path, "--yes", PIP_FIND_LINKS=str(tmp_path))
        assert what in fault["what"] and why in fault["why"] and fix in fault["fix"], fault
        assert site.contents() == before

    code = wheel(tmp_path, "just-code", files={"just_code.py": ""})
    refused(code, "just-code is not a zoo plugin, and was not installed", "no entry point in the group 'zoo.plugins'")
    refused(plugin_wheel(tmp_path, "later", manifest="api: 2\nname: later\n"), "the plugin 'later' of zoo-later 1.0",
            "asks for plugin api 2", "upgrade adaptzoo")  # fmt: skip
    refused(plugin_wheel(tmp_path, "vgg"), "'vgg' is taken: adaptzoo-vgg 0.1.0 has it, and zoo-vgg 1.0 claims it")
    refused(plugin_wheel(tmp_path, "needy", requires=("torch>=99",)), "zoo-needy 1.0 was not installed: it cannot be",
            "zoo-needy 1.0 depends on torch>=99; The user requested (constraint) torch==",
            "zoo plugins install 'zoo-needy<1.0'")  # fmt: skip
    wheel(tmp_path, "zoo-deeper", requires=("timm<1",))
    refused(plugin_wheel(tmp_path, "deep", requires=("zoo-deeper",)), "zoo-deep 1.0 was not installed",
            "zoo-deeper 1.0 depends on timm<1")  # fmt: skip
    evil = {"zoo_evil/zoo.yaml": MANIFEST.format(name="evil", backbone="e"), "torch/hack.py": ""}
    refused(plugin_wheel(tmp_path, "evil", files=evil), "zoo-evil 1.0 is not installed", "into the package 'torch'")
    refused("zoo-nowhere", "there is no wheel of zoo-nowhere to install", "No matching distribution found")
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    broken.write_text("no zip")
    refused(broken, "is not a wheel")
    # It reads well, and its dependency takes its name from it.
    plugin_wheel(tmp_path, "fake", distribution="zoo-helper")
    fake = plugin_wheel(tmp_path, "fake", requires=("zoo-helper",))
    refused(fake, "zoo-fake 1.0 does not work once it is installed, and was taken out again",
            "its name is claimed by")  # fmt: skip


def test_what_is_installed_keeps_its_version_or_gets_it_back(site, tmp_path):
    links = {"PIP_FIND_LINKS": str(tmp_path)}
    site.pip(wheel(tmp_path, "needle", files={"needle.py": ""}), plugin_wheel(tmp_path, "fir"))
    before = site.contents()
    wheel(tmp_path, "needle", "2.0", files={"needle.py": ""})
    fault = site.fault("plugins", "install", plugin_wheel(tmp_path, "thorn", requires=("needle>=2",)), "-y", **links)
    assert fault["what"] == "zoo-thorn 1.0 was not installed: it cannot be had together with what is installed"
    assert "zoo-thorn 1.0 depends on needle>=2; The user requested (constraint) needle==1.0" in fault["why"]
    broken = plugin_wheel(tmp_path / "broken", "fir", version="4.0", manifest="api: [", requires=("zoo-moss",))
    wheel(tmp_path, "zoo-moss", files={"moss.py": ""})
    fault = site.fault("plugins", "install", broken, "-y", **links)
    assert fault["what"] == ("the plugin 'fir' of zoo-fir 4.0 does not work once it is installed, and was taken out "
                             "again; zoo-fir 1.0 is back")  # fmt: skip
    assert site.contents() == before and site.listed()["zoo-fir"]["version"] == "1.0"
    # By its name: the newest that fits, which needs something new.
    plugin_wheel(tmp_path, "fir", version="3.0", requires=("needle>=2",))
    plugin_wheel(tmp_path, "fir", version="2.0", requires=("needle", "zoo-moss"))
    done = json.loads(site.zoo("plugins", "install", "zoo-fir", "-y", "--json", **links).stdout)
    assert (done["version"], done["packages"]) == ("2.0", {"zoo-fir": "2.0", "zoo-moss": "1.0"})
    assert not json.loads(site.zoo("plugins", "install", "zoo-fir", "-y", "--json", **links).stdout)["packages"]
    site.zoo("plugins", "uninstall", "fir", "--yes")
    site.run("-m", "pip", "uninstall", "--yes", "needle", "zoo-moss")


def test_a_name_of_the_registry_is_asked_about_and_installed(site, tmp_path):
    plugin_wheel(tmp_path, "larch")
    registry = tmp_path / "registry.yaml"
    registry.write_text("plugins: {larch: {requirement: zoo-larch, summary: Larches, backbones: [larch1]}}")
    lent = {"ZOO_REGISTRY": str(registry), "PIP_FIND_LINKS": str(tmp_path)}
    assert site.fault("show", "larch1", **lent)["fix"] == "zoo plugins install larch"
    assert site.listed() == {}, "nothing installs by itself"
    assert site.fault("plugins", "install", "larch", **lent) == {
        "what": "nothing was changed: this needs a yes, and nobody can be asked", "why": "",
        "fix": "zoo plugins install larch --yes"}  # fmt: skip
    assert site.listed() == {}
    assert "The registry says of zoo-larch: Larches" in site.zoo("plugins", "install", "larch", "-y", **lent).stderr
    assert site.listed(ZOO_STRICT_PLUGINS="1")["zoo-larch"]["status"] == "ok"
    site.zoo("plugins", "uninstall", "larch", "--yes")


@pytest.mark.parametrize(
    ("file", "content", "install", "uninstall"),
    [
        ("uv-receipt.toml", '[tool]\nrequirements = [{ name = "adaptzoo" }, { name = "zoo-old" }]\n',
         "uv tool install adaptzoo --with zoo-old --with zoo-new", "uv tool install adaptzoo"),
        ("pipx_metadata.json", "{}", "pipx inject adaptzoo zoo-new", "pipx uninject adaptzoo zoo-old"),
    ],
)  # fmt: skip
def test_a_tool_managers_environment_is_left_to_it(site, tmp_path, file, content, install, uninstall):
    site.pip(plugin_wheel(tmp_path, "old"))
    mark = site.root / file
    mark.write_text(content)
    try:
        assert site.fault("plugins", "install", "zoo-new", "--yes")["fix"] == install
        assert site.fault("plugins", "uninstall", "old", "--yes")["fix"] == uninstall
        assert set(site.listed()) == {"zoo-old"}
    finally:
        mark.unlink()
        site.zoo("plugins", "uninstall", "old", "--yes")


def test_without_pip_uv_does_the_work(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        pytest.skip("uv is not installed; `make install` brings it")
    site = Site.make(tmp_path / "env", without_pip=True, modules=LIGHT)
    before = site.contents()
    path = {"PATH": f"{uv.parent}:/usr/bin:/bin", "UV_FIND_LINKS": str(tmp_path / "wheels")}
    plugin_wheel(tmp_path / "wheels", "fir")
    wheel(tmp_path / "wheels", "zoo-deeper", requires=("timm<1",))
    plugin_wheel(tmp_path / "wheels", "deep", requires=("zoo-deeper",))
    assert "has no pip, and there is no uv" in site.fault("plugins", "install", "zoo-fir", PATH="/nowhere")["why"]
    fault = site.fault("plugins", "install", "zoo-deep", "--yes", **path)
    assert fault["what"].startswith("zoo-deep was not installed: it cannot be had together")
    site.zoo("plugins", "install", "zoo-fir", "--yes", **path)
    assert site.listed()["zoo-fir"]["status"] == "ok"
    broken = plugin_wheel(tmp_path, "fir", version="2.0", manifest="api: [")
    fault = site.fault("plugins", "install", broken, "--yes", **path)
    assert fault["what"].endswith("and was taken out again; zoo-fir 1.0 is back")
    again = plugin_wheel(tmp_path, "fir", backbone="fir2")
    assert json.loads(site.zoo("plugins", "install", again, "-y", "--json", **path).stdout)["packages"] == {}
    assert site.listed()["zoo-fir"]["backbones"] == ["fir2"]
    site.zoo("plugins", "uninstall", "fir", "--yes", **path)
    assert site.contents() == before
    site.close()
