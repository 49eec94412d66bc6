"""Plugins that misbehave, each beside a good one: no other command notices, and building names the distribution."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from tests.models.test_lookup import Site, site
from zoo.cli import main
from zoo.errors import PluginError
from zoo.models import lookup, saved
from zoo.models.plugins import importing

__all__ = ["site"]

ROOT = Path(__file__).resolve().parents[2]
REGISTER = """
from timm.models import register_model, generate_default_cfgs, build_model_with_cfg
default_cfgs = generate_default_cfgs({{"{arch}.theirs": {{"url": "", "num_classes": 7}}}})
@register_model
def {arch}(pretrained=False, **kwargs):
    raise RuntimeError("no network of ours")
"""


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests' plugins have the same names."""
    monkeypatch.setattr(importing, "_refused", {})
    monkeypatch.setattr(importing, "_owners", {})


def modular(site: Site, name: str, arch: str, code: str) -> None:
    """A plugin with a module, which says by its name in sys.modules that it was imported."""
    site.plugin(name, [arch], version="0.9", extra=f"module: zoo_{name}_models\n")
    (site.root / f"zoo_{name}_models.py").write_text(code)


def broken_manifest(site: Site, manifest: str) -> None:
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", "0.9")
    site.package("zoo_fir", manifest)


FAULTS: dict[str, Callable[[Site], Any]] = {
    "raises on import": lambda site: modular(site, "fir", "fir1", "raise RuntimeError('no luck')"),
    "exits on import": lambda site: modular(site, "fir", "fir1", "raise SystemExit(0)"),
    "fails to compile": lambda site: modular(site, "fir", "fir1", "def ("),
    "hangs on import": lambda site: modular(site, "fir", "fir1", "import time; time.sleep(600)"),
    "registers timm's architecture": lambda site: modular(site, "fir", "resnet18", REGISTER.format(arch="resnet18")),
    "registers nothing": lambda site: modular(site, "fir", "fir1", ""),
    "builds with an exception": lambda site: modular(site, "fir", "fir_bad", REGISTER.format(arch="fir_bad")),
    "builds something else": lambda site: modular(
        site, "fir", "fir_odd", REGISTER.format(arch="fir_odd").replace("raise RuntimeError", "return print")
    ),
    "bad YAML": lambda site: broken_manifest(site, "api: ["),
    "a manifest of one number": lambda site: broken_manifest(site, "7"),
    "a newer api": lambda site: broken_manifest(site, "api: 99\nname: fir\n"),
    "another's plugin name": lambda site: (
        site.plugin("oak2", ["fir1"], distribution="zoo-other"),
        site.dist("zoo-fir", "[zoo.plugins]\noak2 = zoo_fir:zoo.yaml\n", "0.9"),
    ),
    "another's backbone name": lambda site: site.plugin("fir", ["test_resnet"], version="0.9"),
    "half-uninstalled: no package": lambda site: site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", "0.9"),
    "half-uninstalled: no metadata": lambda site: site.dist(
        "zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", "0.9", metadata=False
    ),
    "half-uninstalled: no manifest": lambda site: (site.plugin("fir", ["fir1"], version="0.9") / "zoo.yaml").unlink(),
    "entry points that are no text": lambda site: site.dist("zoo-fir", b"[zoo.plugins]\nfir = \xff\xfe\n", "0.9"),
}
AT_USE = ("raises", "exits", "fails", "registers", "builds")  # unnoticed until one of its backbones is built


@pytest.mark.parametrize("what", FAULTS)
def test_no_other_command_notices(faults: Try, site: Site, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with faults("plugin", "every other command", what) as fault:
        site.plugin("oak", ["test_resnet"])
        FAULTS[what](site)
        before = set(sys.modules)

        def command(*words: str) -> tuple[int, str, str]:
            lookup.discover.cache_clear()
            code = main.run(list(words))
            out, err = capsys.readouterr()
            assert "Traceback" not in err and len(err.splitlines()) <= 2, err
            return code, out, err

        code, out, err = command("list", "--json")
        silent = what.split()[0] in (*AT_USE, "hangs") or "backbone" in what
        assert err == "" if silent else "zoo-" in err
        assert code == 0 and "oak/test_resnet" in {f"{row['plugin']}/{row['name']}" for row in json.loads(out)}
        assert command("show", "oak/test_resnet")[0] == 0
        code, out, _ = command("plugins", "list", "--json")
        assert code == 0 and {"zoo-oak"} < {row["distribution"] for row in json.loads(out)}
        assert not [name for name in set(sys.modules) - before if name.startswith("zoo_")], "listing imports nothing"
        model = saved.build(lookup.get("oak/test_resnet"), weights=None, num_classes=3)
        assert model.num_classes == 3
        fault.survived(AS_WITHOUT)


@pytest.mark.parametrize(
    "what", [what for what in FAULTS if any(word in what for word in AT_USE) and "hangs" not in what]
)
def test_building_names_the_distribution(faults: Try, site: Site, what: str) -> None:
    with faults("plugin", "building its backbone", what) as fault:
        FAULTS[what](site)
        (spec,) = lookup.backbones()
        for _ in range(2):  # a module that was refused stays so, although Python has it now
            with pytest.raises(PluginError) as caught:
                saved.build(spec, weights=None, num_classes=3)
            assert "zoo-fir" in str(caught.value), caught.value
            assert caught.value.what.startswith(f"fir/{spec.name} cannot be built: ")
            assert caught.value.fix
        fault.survived(ONE_ERROR)


def test_an_architecture_of_timms_stays_timms(faults: Try, site: Site) -> None:
    with faults("plugin", "building its backbone", "takes timm's resnet18, then somebody builds that") as fault:
        function, declared = timm.model_entrypoint("resnet18"), timm.get_pretrained_cfg("resnet18.a1_in1k")
        tags = timm.list_pretrained("resnet18.*")
        modular(site, "fir", "resnet18", REGISTER.format(arch="resnet18"))
        with pytest.raises(PluginError) as caught:
            saved.build(lookup.get("fir/resnet18"), weights=None)
        assert caught.value.what == (
            "fir/resnet18 cannot be built: zoo-fir 0.9 registers architectures that are not its own"
        )
        assert caught.value.why == "importing zoo_fir_models would have taken the place of resnet18 of timm"
        assert timm.model_entrypoint("resnet18") is function
        assert timm.get_pretrained_cfg("resnet18.a1_in1k") == declared and timm.list_pretrained("resnet18.*") == tags
        assert "resnet18.theirs" not in timm.list_pretrained()
        assert timm.create_model("resnet18").num_classes == 1000
        fault.survived(ONE_ERROR)


def test_an_architecture_of_another_plugins_stays_its(faults: Try, site: Site) -> None:
    good = REGISTER.format(arch="zoo_elm").replace(
        'raise RuntimeError("no network of ours")', 'import timm; return timm.create_model("test_resnet", **kwargs)'
    )
    with faults("plugin", "building its backbone", "takes another plugin's architecture") as fault:
        modular(site, "elm", "zoo_elm", good)
        modular(site, "fir", "zoo_fir_own", REGISTER.format(arch="zoo_elm"))
        elm, fir = lookup.get("elm/zoo_elm"), lookup.get("fir/zoo_fir_own")
        lookup.register_architectures(elm)
        with pytest.raises(PluginError) as caught:
            lookup.register_architectures(fir)
        assert "zoo-fir 0.9 registers architectures that are not its own" in caught.value.what
        assert "the place of zoo_elm of zoo-elm 0.9" in caught.value.why
        assert timm.model_entrypoint("zoo_elm").__module__ == "zoo_elm_models"
        fault.survived(ONE_ERROR)
    # Its own it may register again: an author reloads a module that failed the first time.
    sys.modules.pop("zoo_elm_models")
    lookup.register_architectures(elm)


def test_an_import_that_hangs_is_named_and_ctrl_c_ends_it(faults: Try, site: Site) -> None:
    """In a process of its own, as Ctrl-C goes to one."""
    with faults("plugin", "building its backbone", "hangs on import") as fault:
        modular(site, "fir", "fir1", "import time\nwhile True:\n    time.sleep(0.05)\n")
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from zoo.models.plugins import importing; importing.LONG = 0.3\n"
            "from zoo.cli import main; sys.exit(main.run(['plan', 'fir/fir1', '--dataset', 'digits']))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(site.root)], env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "takes long" in line:
                break
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest = process.communicate(timeout=60)[1]
        assert "importing zoo_fir_models of zoo-fir 0.9 takes long; Ctrl-C stops waiting for it" in told[-1]
        assert process.returncode == 130 and time.monotonic() - started < 30
        assert "stopped while importing zoo_fir_models of zoo-fir 0.9" in rest and "Traceback" not in rest
        fault.survived(ONE_ERROR)


def test_a_quick_import_says_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    modular(site, "fir", "fir1", "")
    lookup.register_architectures(lookup.get("fir1"))
    assert not caplog.records and importing.LONG >= 2
