"""The table counts what was tried, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = "from tests.faults.record import *\n"
TESTS = """
import pytest
from tests.faults.record import AS_WITHOUT, ONE_ERROR

def test_survives(faults):
    for number in range(2):
        with faults("kill", "evaluation", f"no. {number}") as fault:
            fault.survived(AS_WITHOUT)
    with faults("disk", "final save", "full") as fault:
        fault.survived(ONE_ERROR)

def test_raises(faults):
    with faults("kill", "evaluation", "raises") as fault:
        fault.survived(AS_WITHOUT)
        raise ValueError

def test_says_nothing(faults):
    with faults("disk", "loading", "says nothing"):
        pass

def test_skips(faults):
    with faults("disk", "loading", "skips"):
        pytest.skip("not here")

def test_is_no_fault():
    pass
"""


def run(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_them.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = faults\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_every_fault_is_counted_with_what_became_of_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- faults -->\nold\n<!-- /faults -->\nafter\n")
    done = run(tmp_path, TESTS, "-m", "faults", "-n", "1", "--faults-page", str(page), "--faults-log", "log")
    assert done.returncode == 1 and "1 passed, 1 skipped" in done.stdout and "2 failed" in done.stdout
    assert "faults tried: 5; survived: 3; lost: 2" in done.stdout
    assert page.read_text() == (
        "before\n<!-- faults -->\n"
        "| fault | hits | tried | as without it | one error | lost |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| disk | final save | 1 | 0 | 1 | 0 |\n"
        "| disk | loading | 1 | 0 | 0 | 1 |\n"
        "| kill | evaluation | 3 | 2 | 0 | 1 |\n"
        "\nfaults tried: 5; survived: 3; lost: 2\n<!-- /faults -->\nafter\n"
    )
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {line["detail"] for line in lines} == {"no. 0", "no. 1", "full", "raises", "says nothing"}


def test_a_marked_test_must_count(tmp_path: Path) -> None:
    done = run(tmp_path, "import pytest\n\n@pytest.mark.faults\ndef test_one():\n    pass\n")
    assert done.returncode != 0 and "must use the fixture to count what it tries" in done.stdout + done.stderr
