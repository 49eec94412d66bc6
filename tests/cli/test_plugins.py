"""`zoo plugins …` where nothing is installed for real; tests/e2e/test_plugins.py installs."""

from __future__ import annotations

import sys

import pytest

from zoo.models.plugins import install as installing
from zoo.models.plugins.install import Installed, Installer


@pytest.fixture
def installs(monkeypatch):
    """What would have been installed."""
    done = []

    def install(source, installer, on_line):
        done.append(source.what)
        on_line("Requirement already satisfied: torch")
        on_line("Collecting zoo-fir")
        row = {"name": "fir", "backbones": ["fir1"]}
        return Installed("zoo-fir", "1.0", [row], {"zoo-fir": "1.0", "needle": "2"}, [("tree", "fir/tree or oak/tree")])

    monkeypatch.setattr(installing, "install", install)
    monkeypatch.setattr(installing, "find_installer", lambda action, what: Installer("pip", ("pip",)))
    return done


def test_install_asks_and_takes_no_for_an_answer(zoo_, installs, monkeypatch):
    monkeypatch.setattr("zoo.cli.output.on_terminal", lambda stream: stream is sys.stdin)
    done = zoo_("plugins", "install", "zoo-fir", stdin="n\n")
    assert (done.code, installs) == (1, [])
    assert "Install zoo-fir with pip? [y/N]" in done.err and "error: nothing was changed" in done.err
    done = zoo_("plugins", "install", "zoo-fir", stdin="y\n")
    assert (done.code, installs) == (0, ["zoo-fir"])
    assert done.out.startswith("installed zoo-fir 1.0\nand 1 package that it needs: needle 2\nplugin fir: fir1\n")
    assert "  Collecting zoo-fir\n" in done.err and "already satisfied" not in done.err
    assert "tree is now offered by two plugins; write fir/tree or oak/tree" in done.err


def test_install_does_nothing_where_nobody_can_be_asked(zoo_, installs):
    done = zoo_("plugins", "install", "zoo-fir>=1", "--json")
    assert (done.code, installs) == (1, [])
    assert done.json["error"]["fix"] == "zoo plugins install 'zoo-fir>=1' --yes"
    assert zoo_("plugins", "install", "zoo-fir", "--yes", "--json").json["distribution"] == "zoo-fir"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("squeezenet", "the plugin 'squeezenet' cannot be installed by its name"),
        ("no/such/folder", "there is no file or folder no/such/folder"),
        ("fir.whl", "there is no file or folder fir.whl"),
        ("--help-me", "No such option"),
        ("a b", "'a b' is neither a plugin of the registry nor a requirement, a wheel or a folder"),
        ("zoo-fir @ git+https://example.org/fir", "does not name a wheel"),
        (".", "is not a Python project\n  why: it has no pyproject.toml"),
    ],
)
def test_what_cannot_be_meant(zoo_, installs, tmp_path, monkeypatch, what, message):
    monkeypatch.chdir(tmp_path)
    done = zoo_("plugins", "install", what, "--yes")
    assert done.code == (2 if what.startswith("--") else 1)
    assert message in done.err and installs == []


def test_a_project_without_our_entry_point_is_refused_before_it_is_built(zoo_, installs, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tool"\nversion = "1"\n')
    done = zoo_("plugins", "install", f"{tmp_path}/", "--yes")
    assert "tool is not a zoo plugin, and was not installed" in done.err and installs == []


def test_search(zoo_):
    rows = {row["name"]: row for row in zoo_("plugins", "search", "--json").json}
    assert rows["resnet"]["installed"] == "0.1.0" and rows["squeezenet"]["installed"] is None
    assert rows["squeezenet"]["published"] is False
    assert [row["name"] for row in zoo_("plugins", "search", "SqueezeNet1_1", "--json").json] == ["squeezenet"]
    assert "how to get one: zoo plugins show squeezenet" in zoo_("plugins", "search", "squeeze").out
    assert "the registry knows no plugin for 'qqq'" in zoo_("plugins", "search", "qqq").err


def test_show(zoo_):
    facts = zoo_("plugins", "show", "adaptzoo-legacy", "--json").json
    assert (facts["name"], facts["api"], facts["module"]) == ("legacy", 1, "adaptzoo_legacy.models")
    assert facts["backbones"][1]["weights"][0]["license"] == "bsd-3-clause"
    assert "conv1, conv2" in zoo_("plugins", "show", "legacy").out
    absent = zoo_("plugins", "show", "squeezenet", "--json").json
    assert absent["status"] == "not installed" and "zoo plugins install PATH" in absent["fix"]
    assert "no plugin named 'qqq' is installed or in the registry" in zoo_("plugins", "show", "qqq").err


def test_uninstall_refuses_what_is_no_plugin_and_what_adaptzoo_needs(zoo_):
    done = zoo_("plugins", "uninstall", "resnet", "--yes")
    assert "adaptzoo-resnet cannot be removed\n  why: adaptzoo itself depends on it" in done.err
    assert "torch is not a zoo plugin" in zoo_("plugins", "uninstall", "torch", "--yes").err
    assert "no plugin or distribution named 'qqq' is installed" in zoo_("plugins", "uninstall", "qqq", "--yes").err


def test_check_says_what_fails(zoo_, monkeypatch):
    from zoo import testing
    from zoo.testing import Check

    done = zoo_("plugins", "check", "resnet/resnet_nano", "--fast")
    assert done.code == 0 and "1 backbone of 1 keeps the contracts" in done.out
    monkeypatch.setattr(
        testing, "check_backbone", lambda name, numerics: [Check("head", name.endswith("alexnet"), "it is\nfc")]
    )
    done = zoo_("plugins", "check", "legacy")
    assert done.code == 1
    lines = [line.split() for line in done.out.splitlines()]
    assert ["legacy/alexnet", "ok"] in lines and ["legacy/googlenet", "FAIL"] in lines
    assert "legacy/googlenet: head: it is\n  fc\n1 backbone of 2 keeps the contracts\n" in done.out
    rows = zoo_("plugins", "check", "legacy", "--json")
    assert rows.code == 1 and [row["ok"] for row in rows.json] == [True, False]
    assert "name one of its architectures" in zoo_("plugins", "check", "timm").err
    assert "no plugin named 'qqq' is installed" in zoo_("plugins", "check", "qqq").err


def test_new_writes_whole_plugins_and_overwrites_nothing(zoo_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = zoo_("plugins", "new", "fir_tree", "--module", "--json").json
    assert (made["distribution"], made["folder"]) == ("adaptzoo-fir-tree", "adaptzoo-fir-tree")
    assert {"adaptzoo_fir_tree/models.py", "tests/test_plugin.py", "pyproject.toml"} <= set(made["files"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) == len(made["files"]), "nothing else is left"
    assert "adaptzoo-fir-tree is there already" in zoo_("plugins", "new", "fir_tree").err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, message in (("Fir!", "for instance: zoo plugins new fir"), ("../x", "cannot name a plugin"),
                          ("1a", "cannot name a plugin"), ("adaptzoo-fir", "fix: zoo plugins new fir"),
                          ("resnet", "is taken by adaptzoo-resnet 0.1.0")):  # fmt: skip
        done = zoo_("plugins", "new", name)
        assert done.code == 1 and message in done.err, name


def test_list_says_what_zoo_plugins_leaves_out(zoo_, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "resnet,timm")
    done = zoo_("plugins", "list", "--json")
    assert len(done.json) >= 4
    assert done.err.startswith("not in use, because ZOO_PLUGINS leaves them out: ") and "vgg" in done.err
