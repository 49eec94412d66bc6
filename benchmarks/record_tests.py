"""A pytest plugin: notes how each test ended, names tests to coverage, and runs chosen ones in their order.

It is copied out of here, for the tree that is tested has a `benchmarks` of its own. `RECORD_TESTS` is the file for the
outcomes, a line of JSON for each test; `CHOSEN_TESTS`, if set, has the names of the tests to run, a line for each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_notes: dict[str, dict[str, Any]] = {}  # of tests that are not over


@pytest.hookimpl(trylast=True)  # after those that sort
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    chosen = os.environ.get("CHOSEN_TESTS")
    if chosen is not None:
        names = Path(chosen).read_text(encoding="utf-8").split("\n")
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in names if name in found]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    coverage = _coverage()
    if coverage is None:
        return (yield)
    coverage.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        coverage.switch_context("")


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # the process that hands out the tests hears of it too
        return
    note = _notes.setdefault(report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0})
    note["seconds"] += report.duration
    if report.outcome != "passed" and note["outcome"] != "failed":
        note["outcome"] = report.outcome
    if report.when == "teardown":
        note["seconds"] = round(note["seconds"], 3)
        with open(os.environ["RECORD_TESTS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(_notes.pop(report.nodeid)) + "\n")


@pytest.hookimpl
def pytest_unconfigure() -> None:
    coverage = _coverage()
    if coverage is not None:  # a worker does not end in a way that leaves time for it
        coverage.stop()
        coverage.save()


def _coverage() -> Any:
    module = sys.modules.get("coverage")
    return None if module is None else module.Coverage.current()
