"""What the tests that kill and starve whole runs share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery, nursery
from tests.faults.runs import DRAWINGS, Case, Cases
from tests.pictures import four


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    four(root / DRAWINGS, 6, size=40)
    return four(root / "photos", 8)


@pytest.fixture(scope="session")
def children() -> Iterator[Nursery]:
    """Starts processes quickly."""
    with nursery() as found:
        yield found


@pytest.fixture(scope="session")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts processes whose disk can be full."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler, to make a disk look full with")
    library = tmp_path_factory.mktemp("full") / "full.so"
    source = Path(__file__).with_name("full.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the C compiler cannot make the disk look full: {done.stderr[:200]}")
    with nursery(LD_PRELOAD=str(library)) as found:
        yield found


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory, photos: Path, children: Nursery) -> Cases:
    """Runs to spoil, and what each is without a fault."""
    return Cases(tmp_path_factory.mktemp("cases"), photos, children)


@pytest.fixture
def case(cases: Cases, tmp_path: Path) -> Case:
    """The default strategy's."""
    return cases.make(tmp_path, "lp-ft")
