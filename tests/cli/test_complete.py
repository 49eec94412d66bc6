"""Completion as a shell asks for it: a process of its own for every Tab, and the scripts that ask in real shells."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from tests.cli.test_light import CHECK
from tests.forks import Forks
from zoo.recipes.strategies import PRESETS
from zoo.runs.run_folder import Run

ZOO = Path(sys.executable).with_name("zoo")


def run(code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [str(ZOO)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=60)


def asked(*words: str) -> dict[str, str]:
    """What bash sets when Tab is pressed after the last of these words."""
    line = ["zoo", *words]
    return {"_ZOO_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}


@cache
def parent() -> Forks:
    """Forks a process for each Tab: what they print and nothing else is asked, so one start of Python does for all."""
    forks = Forks(modules=("zoo.cli.main",))
    atexit.register(forks.close)
    return forks


def offered(*words: str) -> list[str]:
    done = parent().run([str(ZOO)], {**os.environ, **asked(*words)}, Path.cwd())
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, status in (("done", "finished"), ("torn", "interrupted"), ("stopped", "failed")):
        Path("runs", name).mkdir(parents=True)
        Run(Path("runs", name)).write_record({"schema": 1, "status": status})
    Path("runs/damaged").mkdir()
    Path("runs/damaged/run.json").write_text("{")
    return tmp_path


def test_commands_and_options():
    assert offered("pl") == ["plan", "plugins"]
    assert offered("plugins", "un") == ["uninstall"]
    assert offered("adapt", "--str") == ["--strategy"]
    assert "--json" in offered("eval", "--")


def test_choices():
    assert offered("adapt", "resnet50", "--strategy", "") == list(PRESETS)
    assert offered("plan", "--strategy", "pr") == ["probe"]


@pytest.mark.parametrize("command", ["adapt", "plan", "show"])
def test_backbones_come_from_the_manifests(command):
    found = offered(command, "res")
    assert {"resnet_nano", "resnet50", "resnext50_32x4d"} <= set(found)
    assert all(name.startswith("res") for name in found)
    assert offered(command, "legacy/al") == ["legacy/alexnet"]


def test_data_sets_come_from_the_registries_and_folders_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", ".hidden"):
        Path(name).mkdir()
    Path("pages.txt").touch()
    assert offered("adapt", "resnet50", "--dataset", "p") == ["pets", "photos/"]
    assert offered("eval", "resnet50", "-d", "cifar") == ["cifar10", "cifar100"]
    own = tmp_path / "own.yaml"
    own.write_text("datasets:\n  insects: {summary: bugs, hub: me/insects}\n")
    monkeypatch.setenv("ZOO_REGISTRY", str(own))
    assert offered("plan", "--dataset", "ins") == ["insects"]
    own.write_text("datasets: [")
    assert offered("plan", "--dataset", "p") == ["photos/"], "a file with faults must not spill over the typed line"


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_finished_runs_and_backbones_for_what_uses_a_model(runs, command):
    assert offered(command, "ru") == ["runs/done"]
    assert offered(command, "do") == ["done"]
    assert offered(command, f"{runs}/runs/") == [f"{runs}/runs/done"]
    everything = offered(command, "")
    assert everything[0] == "runs/done"
    assert "resnet50" in everything


def test_runs_to_go_on_with(runs):
    assert sorted(offered("adapt", "--resume", "")) == ["runs/stopped", "runs/torn"]
    assert offered("adapt", "--resume", "runs/t") == ["runs/torn"]
    assert offered("adapt", "--resume", "elsewhere/") == []


@pytest.mark.parametrize("words", [("adapt", "res"), ("adapt", "-d", ""), ("eval", ""), ("adapt", "--resume", "")])
def test_a_tab_loads_nothing_heavy(runs, words):
    done = run(CHECK, **asked(*words))
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == "LOADED []\n"


def test_a_tab_is_quicker_than_importing_torch():
    def seconds(command: list[str | Path], **env: str) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **env})
        return time.perf_counter() - start

    tab = min(seconds([ZOO], **asked("adapt", "res")) for _ in range(3))
    assert tab <= seconds([sys.executable, "-c", "import torch"]) / 2


def shell(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"no {name} on this machine (Debian: apt-get install {name})")


def in_shell(command: list[str]) -> str:
    path = os.pathsep.join([str(ZOO.parent), os.environ["PATH"]])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Installed by the shell itself, which is how zoo knows which one it is; `:` keeps it from handing its process over.
def test_bash_completes_after_the_installation(runs):
    assert "bash completion installed" in in_shell([shell("bash"), "-c", "zoo --install-completion; :"])
    tab = 'COMP_WORDS=(zoo adapt resnet_); COMP_CWORD=2; _zoo_completion zoo; echo "${COMPREPLY[@]}"; complete -p zoo'
    out = in_shell([shell("bash"), "--norc", "-c", f". ~/.bashrc; {tab}"])
    assert out.splitlines() == ["resnet_nano", "complete -o default -F _zoo_completion zoo"]


def test_fish_completes_after_the_installation(runs, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")  # typer installs into ~/.config alone
    assert "fish completion installed" in in_shell([shell("fish"), "-c", "zoo --install-completion; true"])
    assert in_shell([shell("fish"), "-c", "complete -C 'zoo adapt resnet_'"]) == "resnet_nano\n"
    assert in_shell([shell("fish"), "-c", "complete -C 'zoo adapt --resume runs/t'"]) == "runs/torn\n"


def test_zsh_completes_after_the_installation(runs):
    assert "zsh completion installed" in in_shell([shell("zsh"), "-f", "-c", "zoo --install-completion; :"])
    assert "_zoo_completion" in Path("~/.zfunc/_zoo").expanduser().read_text()
    # Its line editor wants a terminal; what the editor calls does not, and hands its answer to zsh's `_arguments`.
    stand_in = "compdef() { :; }; _arguments() { print -r -- $1; }; words=(zoo adapt resnet_); CURRENT=3"
    out = in_shell([shell("zsh"), "-f", "-c", f"{stand_in}; . ~/.zfunc/_zoo; _zoo_completion"])
    assert out == '*: :(("resnet_nano"))\n'
