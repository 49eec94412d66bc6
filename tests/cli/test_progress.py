"""What is shown while something takes long."""

from __future__ import annotations

import io
import sys

import pytest

from tests.cli.conftest import PLAN, Terminal
from zoo.cli import progress
from zoo.events import PhaseStarted, PlanReady, Progress


def test_training_goes_on_when_nobody_listens_any_more(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            if "reading" in text:
                raise BrokenPipeError
            return super().write(text)

    stream = Gone()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.shown("loading torch") as listen:
        listen(Progress("reading images", 0, 0))
        listen(PlanReady(PLAN))
    assert stream.getvalue() == "loading torch\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_an_error_leaves_the_streams_as_they_were(monkeypatch, stream):
    screen, before = stream(), sys.stdout
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ValueError, match="stop"), progress.shown("loading torch") as listen:
        listen(PhaseStarted("probe", 1, 10, 0))
        print("chatter")
        raise ValueError("stop")
    assert sys.stderr is screen and sys.stdout is before
    assert "loading torch" in screen.getvalue() and "chatter" in screen.getvalue()
    assert screen.getvalue().rfind("\x1b[?25h") >= screen.getvalue().rfind("\x1b[?25l")
