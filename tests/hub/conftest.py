"""The fixtures for this folder's tests: the Hub, and the real client in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import close_session, disable_progress_bars, enable_progress_bars

from tests.hub.fixture import hub
from tests.hub.server import Server

__all__ = ["hub"]

Client = Callable[..., HfApi]


@pytest.fixture
def client(hub: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """`client(token)` is an HfApi with that token, `client(False)` one without; `client()` is tester's."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()  # one made before knows nothing of that
    disable_progress_bars()
    yield lambda token=hub.token: HfApi(endpoint=hub.url, token=token)
    enable_progress_bars()
    close_session()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as one pushes it: two regular files and a large one."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "README.md").write_text("---\nlicense: mit\nlibrary_name: timm\ntags: [timm]\n---\n# A model\n")
    (path / "config.json").write_text('{"architecture": "resnet18"}')
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return path
