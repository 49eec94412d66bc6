"""What is shown while something takes long."""

from __future__ import annotations

import io
import sys

import pytest

from tests.cli.conftest import PLAN, Terminal
from zoo.cli import progress
from zoo.cli.progress import Lines
from zoo.events import CheckpointSaved, PhaseStarted, PlanReady, Progress, StepDone


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_are_few():
    stream, clock = io.StringIO(), Clock()
    view = Lines(stream, clock)
    view.stage("loading torch", 0, 0)
    for done in range(0, 1001):
        clock.now = done / 50  # 20 seconds
        view.hear(Progress("reading images", done, 1000))
    assert stream.getvalue().splitlines() == [
        "loading torch", "reading images: 100 of 1,000", "reading images: 850 of 1,000"]  # fmt: skip


def test_work_that_is_quickly_done_says_nothing():
    stream, clock = io.StringIO(), Clock()
    view = Lines(stream, clock)
    for done in range(0, 101):
        clock.now = done / 100
        view.hear(Progress("reading images", done, 100))
    assert stream.getvalue() == ""


def test_a_long_epoch_says_how_long_it_will_take():
    stream, clock = io.StringIO(), Clock()
    view = Lines(stream, clock)
    view.hear(PhaseStarted("finetune", 2, 200, 100))  # after a resume: half of it is done
    for step in range(1, 101):
        clock.now = step / 2.0
        view.hear(StepDone("finetune", 2, 300 + step, 0.5, {}))
    assert stream.getvalue().splitlines() == [
        "finetune epoch 2: step 130 of 200, loss 0.500, 35 s left",
        "finetune epoch 2: step 160 of 200, loss 0.500, 20 s left",
        "finetune epoch 2: step 190 of 200, loss 0.500, 5.0 s left",
    ]


def test_a_checkpoint_is_not_worth_a_line():
    stream = io.StringIO()
    Lines(stream).hear(CheckpointSaved("runs/a/checkpoints/1", 1))
    assert stream.getvalue() == ""


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
