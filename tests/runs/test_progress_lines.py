"""What a running job says in plain lines, and when it says it unasked."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import zoo
from tests.cli.conftest import PLAN, Terminal
from zoo.events import CheckpointSaved, EpochDone, Note, PhaseStarted, PlanReady, Progress, StepDone
from zoo.runs import progress_lines, train
from zoo.runs.progress_lines import Lines, undisturbed


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


def test_a_plan_is_shown_with_its_notes_once():
    stream = io.StringIO()
    Lines(stream).hear(PlanReady(PLAN))
    assert stream.getvalue() == f"{PLAN}\n\n" and stream.getvalue().count("note: val is cut from train") == 1


def test_a_plan_that_is_not_shown_leaves_its_notes():
    stream = io.StringIO()
    undisturbed(Lines(stream), show_plan=False)(PlanReady(PLAN))
    assert stream.getvalue() == "note: val is cut from train\n"


def adapted(monkeypatch, stream, **named):
    """What `zoo.adapt` writes to stderr when somebody else does the work."""

    def start(_backbone, _dataset, _recipe, _out, emit):
        for event in (Progress("reading images", 0, 0), PlanReady(replace(PLAN, notes=())), Note("warm"),
                      EpochDone("finetune", 2, 2, 0.5, 0.4, 0.92, 1.5, True)):  # fmt: skip
            emit(event)

    monkeypatch.setattr(train, "start", start)
    monkeypatch.setattr(sys, "stderr", stream)
    zoo.adapt("resnet_nano", "digits", **named)
    return stream.getvalue()


SHOWN = """reading images
{}

note: warm
finetune 2/2  train loss 0.500  val loss 0.400  val accuracy 92.0%  1.5 s  best so far
"""


def test_adapt_shows_progress_where_a_person_watches(monkeypatch):
    shown = SHOWN.format(replace(PLAN, notes=()))
    assert adapted(monkeypatch, Terminal()) == shown
    assert adapted(monkeypatch, io.StringIO()) == "", "a log, a server"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    assert adapted(monkeypatch, io.StringIO()) == shown, "a notebook"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert adapted(monkeypatch, io.StringIO()) == "", "IPython was imported, and is not at work"


def test_progress_is_shown_or_not_as_asked(monkeypatch):
    assert adapted(monkeypatch, Terminal(), progress=False) == ""
    assert adapted(monkeypatch, io.StringIO(), progress=True).startswith("reading images\n")
    heard: list[object] = []
    assert adapted(monkeypatch, Terminal(), progress=True, on_event=heard.append) == "" and len(heard) == 4
    monkeypatch.setenv("RANK", "1")
    assert adapted(monkeypatch, Terminal()) == "", "the first process speaks for all"


def test_no_stderr_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    progress_lines.listener()(Note("nobody"))
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    progress_lines.listener()(Note("nobody"))
