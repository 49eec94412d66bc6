from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports_need_no_collecting() -> Iterator[None]:
    """A phase ends with a garbage collection, which takes longer than a toy's training if it looks at every import."""
    from tests.training import toy  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()
