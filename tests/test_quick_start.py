"""Adapting loads what it uses when it uses it, and tells the result before it draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LATE = ("datasets", "sklearn", "pandas", "matplotlib", "jinja2", "scipy")
# Runs `zoo adapt`, and writes down which of these modules are there when the first images come to the network, when the
# result is told, and when a picture is drawn.
CODE = f"""
import io, json, sys
from torch import nn
from zoo.cli.main import run
from zoo.models import saved

seen = {{}}
def mark(when):
    seen.setdefault(when, [name for name in {LATE!r} if name in sys.modules])
plain = saved.build
def build(*args, **options):
    model = plain(*args, **options)
    model.register_forward_pre_hook(lambda *_: mark("batch"))
    return model
saved.build = build

class Told(io.TextIOWrapper):
    def write(self, text):
        if text.startswith("accuracy"):
            mark("told")
        return super().write(text)
sys.stdout = Told(sys.stdout.buffer, write_through=True)
code = run(sys.argv[1:])
mark("end")
print(json.dumps(seen), file=sys.stderr)
sys.exit(code)
"""


def seen(*words: str, folder: Path) -> tuple[dict[str, list[str]], str]:
    """What was loaded at each moment of `zoo adapt`, and what it printed as its result."""
    asked = ["adapt", "resnet_nano", "--dataset", "digits", "--limit", "100", "--strategy", "probe", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *asked, *words], capture_output=True, text=True, cwd=folder, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stderr.splitlines()[-1])
    return found, done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], str]:
    return seen(folder=tmp_path_factory.mktemp("plain"))


def test_the_first_batch_waits_for_nothing_that_it_does_not_need(plain: tuple[dict[str, list[str]], str]) -> None:
    assert plain[0]["batch"] == []
    assert "sklearn" in plain[0]["told"], "a probe tries whether norm statistics of these images are better"


def test_the_result_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    loaded, output = seen("--recalibrate", "off", folder=tmp_path)
    assert loaded["told"] == []
    assert loaded["end"] == ["matplotlib", "jinja2"], "the card is written and the plots are drawn afterwards"
    lines = output.splitlines()
    assert lines[0].startswith("accuracy ") and sum(line.startswith("accuracy ") for line in lines) == 1
    assert [line.split()[0] for line in lines if line.startswith(("run ", "report "))] == ["run", "report"]
    assert lines[-3:-1] == ["next:", "  zoo eval runs/resnet_nano-digits"]


def test_json_is_one_document_at_the_end(tmp_path: Path) -> None:
    loaded, output = seen("--recalibrate", "off", "--json", folder=tmp_path)
    assert "told" not in loaded
    assert Path(json.loads(output)["report"]).is_file()
