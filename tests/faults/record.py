"""Count the faults that tests try, and what became of each: the table of `make test-faults`.

A test asks for the fixture `faults`, which also gives it the marker of that name, and says what it tries:

    def test_a_full_disk(faults, tmp_path):
        with faults("disk", "checkpoint write", "no space at write 12") as fault:
            ...  # do it, and assert what must be true afterwards
            fault.survived(ONE_ERROR)

A fault is lost when the block raises, or ends without saying how it was survived. A test that is left out of the quick
suite is marked `heavy` besides.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

AS_WITHOUT = "as without it"  # bit-identical, verified, or the right answer: nobody need know
ONE_ERROR = "one error"  # one clear error that names the fault; nothing half-written, and one can go on
OUTCOMES = (AS_WITHOUT, ONE_ERROR)

_PROPERTY = "fault"
_PLACE = re.compile(r"(<!-- faults -->\n).*?(<!-- /faults -->)", re.DOTALL)


class Fault:
    """One fault that is being tried."""

    def __init__(self) -> None:
        self.outcome: str | None = None

    def survived(self, outcome: str) -> None:
        """Say how; the last thing in the block, after everything that must be true was asserted."""
        assert outcome in OUTCOMES, f"a fault is survived {' or '.join(map(repr, OUTCOMES))}, not {outcome!r}"
        self.outcome = outcome


Try = Callable[[str, str, str], AbstractContextManager[Fault]]


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Try:
    """Try a fault: `with faults(kind, operation, detail) as fault`.

    kind: a row's first word, such as "kill", "disk", "hub", "image"; operation: what it hits, such as "evaluation";
    detail: what tells this one from others of its row.
    """

    @contextmanager
    def tried(kind: str, operation: str, detail: str) -> Iterator[Fault]:
        fault, counted = Fault(), True
        try:
            yield fault
            assert fault.outcome, f"nobody said how this was survived: {kind}, {operation}, {detail}"
        except pytest.skip.Exception:
            counted = False
            raise
        except BaseException:
            fault.outcome = None
            raise
        finally:
            if counted:  # user_properties travel with the report, from xdist's workers too
                record = {"kind": kind, "operation": operation, "detail": detail, "outcome": fault.outcome}
                request.node.user_properties.append((_PROPERTY, record))

    return tried


# --- pytest's hooks; tests/conftest.py takes them in ---


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-page", metavar="PAGE", help="write the table of faults into this Markdown page")
    group.addoption(
        "--faults-log", metavar="FILE", help="write every fault that was tried into this file, a JSON line each"
    )


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in getattr(item, "fixturenames", ()):
            item.add_marker("faults")
        elif item.get_closest_marker("faults"):
            raise pytest.UsageError(f"{item.nodeid} is marked faults, and must use the fixture to count what it tries")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table where faults alone were asked for, a line elsewhere, and write what the options ask for."""
    tried = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not tried:
        return
    terminalreporter.section("faults")
    if "faults" in config.option.markexpr:
        terminalreporter.write_line(table(tried, plain=True))
    terminalreporter.write_line(total(tried))
    if config.option.faults_page:
        page = Path(config.option.faults_page)
        text, places = _PLACE.subn(
            lambda found: f"{found[1]}{table(tried)}\n\n{total(tried)}\n{found[2]}", page.read_text(encoding="utf-8")
        )
        if not places:
            raise pytest.UsageError(f"{page} has no place for the table: <!-- faults --> and <!-- /faults -->")
        page.write_text(text, encoding="utf-8")
    if config.option.faults_log:
        lines = "".join(f"{json.dumps(record)}\n" for record in tried)
        Path(config.option.faults_log).write_text(lines, encoding="utf-8")


def total(tried: list[dict[str, Any]]) -> str:
    """The line below the table."""
    lost = sum(record["outcome"] is None for record in tried)
    return f"faults tried: {len(tried)}; survived: {len(tried) - lost}; lost: {lost}"


def table(tried: list[dict[str, Any]], *, plain: bool = False) -> str:
    """A row for each kind and operation: Markdown, or columns for a terminal."""
    counts = Counter((record["kind"], record["operation"], record["outcome"]) for record in tried)
    rows = [("fault", "hits", "tried", *OUTCOMES, "lost")]
    for kind, operation in sorted({key[:2] for key in counts}):
        numbers = [counts[kind, operation, outcome] for outcome in (*OUTCOMES, None)]
        rows.append((kind, operation, *map(str, (sum(numbers), *numbers))))
    if not plain:
        lines = [rows[0], ("---", "---", *["---:"] * 4), *rows[1:]]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
