"""The fixture `hub`: import it into a test module or a conftest that wants it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import Server


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    """An empty Hub; put repositories below `hub.root` and pass `hub.environment()` to a subprocess."""
    with Server(tmp_path / "hub") as server:
        yield server
    assert not server.errors, "\n".join(server.errors)
