"""How much of zoo the quick tests cover in two revisions, lines and branches; and which test covers which line.

One revision after the other runs what `make test` runs. Every Python process is measured: coverage's .pth file starts
it in each, and what a test starts counts for that test. Nothing is known of a process that is killed, or of a fork that
leaves without ado; so in both revisions. A revision that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import revisions
from benchmarks.revisions import Tree

FOLDER, CLONE = "coverage", "tree"  # in the work folder of a revision
DATA, TESTS, TOTALS = ".coverage", "tests.jsonl", "totals.json"

_SETTINGS = """[run]
branch = true
parallel = true
data_file = {data}
source = {source}
context = ${{PYTEST_CURRENT_TEST-}}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    revisions.add_arguments(parser)
    parser.add_argument("--jobs", type=int, default=2, help="processes of the test run (default: 2)")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="only these (default: all)")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    if find_spec("coverage") is None:
        raise SystemExit("coverage is not installed; python -m pip install --group benchmarks")
    found = {tree.side: _measured(tree, arguments) for tree in revisions.trees(arguments, CLONE)}
    for side, totals in found.items():
        sys.stderr.write(
            f"{side}: lines {100 * totals['covered_lines'] / max(1, totals['lines']):.2f} %, "
            f"branches {100 * totals['covered_branches'] / max(1, totals['branches']):.2f} %\n"
        )
    return {"tests": arguments.tests, **found}


def command(*words: str) -> list[str]:
    """How pytest runs in a tree, with the plugin that notes outcomes."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "record_tests", "-p", "no:cacheprovider", *words]


def with_plugin(folder: Path) -> Path:
    """A folder that has the pytest plugin and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("record_tests.py"), folder)
    return folder


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """What the plugin noted about each test."""
    file = folder / TESTS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def _measured(tree: Tree, arguments: argparse.Namespace) -> dict[str, Any]:
    folder = tree.work / FOLDER
    if (folder / TOTALS).is_file():
        known: dict[str, Any] = json.loads((folder / TOTALS).read_text(encoding="utf-8"))
        if known["selection"] == arguments.tests:
            return known
    shutil.rmtree(folder, ignore_errors=True)
    plugin, settings = with_plugin(folder / "plugin"), folder / "coveragerc"
    settings.write_text(_SETTINGS.format(data=folder / DATA, source=tree.path / "zoo"), encoding="utf-8")
    variables = {"COVERAGE_PROCESS_START": str(settings), "RECORD_TESTS": str(folder / TESTS)}
    words = command("-m", "not heavy", "-n", str(arguments.jobs), "--dist", "worksteal", *arguments.tests)
    started = time.monotonic()
    subprocess.run(words, cwd=tree.path, env=tree.environment(plugin, **variables), stdout=sys.stderr)
    seconds = time.monotonic() - started
    for doing in (["combine", "--quiet"], ["json", "--quiet", "-o", str(folder / "report.json")]):
        subprocess.run([sys.executable, "-m", "coverage", doing[0], f"--rcfile={settings}", *doing[1:]],
                       check=True, cwd=tree.path, stdout=sys.stderr)  # fmt: skip
    counts = json.loads((folder / "report.json").read_text(encoding="utf-8"))["totals"]
    tests = outcomes(folder)
    totals = {
        "commit": tree.commit,
        "selection": arguments.tests,
        "seconds": round(seconds),
        "lines": counts["num_statements"],
        "covered_lines": counts["covered_lines"],
        "branches": counts["num_branches"],
        "covered_branches": counts["covered_branches"],
        "tests": dict(Counter(note["outcome"] for note in tests)),
        "failed": sorted(note["test"] for note in tests if note["outcome"] == "failed"),
    }
    (folder / TOTALS).write_text(json.dumps(totals, indent=2) + "\n", encoding="utf-8")
    return totals
