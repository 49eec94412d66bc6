"""Every test has folders of its own, one thread, and no network."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.record import (  # noqa: F401  # a fixture, and the hooks that print what it counted
    faults,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
)

# Read by libraries at import, so they are set before any test module is.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", MPLBACKEND="agg")

SHARED = Path(__file__).resolve().parents[2] / "shared"


# Where plots of reports are looked at. Elsewhere reports are written without them: drawing takes longer than a small
# training.
DRAWN = (
    "tests/runs/report/",
    "tests/runs/test_multitask.py",
    "tests/studies/ensemble/",
    "tests/studies/compare/",
    "tests/e2e/",
    "tests/faults/test_hostile",
)


def pytest_collection_finish() -> None:
    if "torch" in sys.modules:
        from zoo.runs.report import page

        draw = page._plots

        def plots(record: dict[str, Any], history: Any) -> Any:
            return draw(record, history) if os.environ.get("PYTEST_CURRENT_TEST", "").startswith(DRAWN) else {}

        page._plots = plots
    # What has been imported stays, so the garbage collector need not look through it each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("ZOO_CACHE", str(home / "zoo"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.delenv("ZOO_REGISTRY", raising=False)
    yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(
            ("127.", "::1", "localhost")
        ):  # type: ignore[index]
            raise AssertionError(f"a test tried to reach {address}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data and weights; tests that want them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED
