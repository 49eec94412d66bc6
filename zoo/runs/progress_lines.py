"""Progress as plain lines: what a running job tells a person, on a terminal, in a notebook or in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from zoo.base.text import count, duration, percent
from zoo.errors import printable
from zoo.events import EpochDone, Event, Listener, Note, PhaseStarted, PlanReady, Progress, StepDone, ignore
from zoo.recipes.plan import Plan
from zoo.tasks.schema import measure_name, written

_PATIENCE = 2.0  # seconds that something may take before it has to say so
_PLAIN_EVERY = 15.0  # seconds between plain lines about one piece of work


def listener(progress: bool | None = None) -> Listener:
    """What shows progress on stderr while a function of `zoo` is at work.

    Args:
        progress: Whether to; None: where a person watches, on a terminal or in a notebook.
    """
    from zoo.training.machine import process_index  # which is heavy, and by now is loaded

    if process_index() > 0 or not (_is_watched() if progress is None else progress):  # the first speaks for all
        return ignore
    return undisturbed(Lines(sys.stderr))


def _is_watched() -> bool:
    """Whether this is a terminal or a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    with contextlib.suppress(AttributeError, ValueError):  # there is no stderr, or it is closed
        return sys.stderr.isatty() or (shell is not None and shell() is not None)
    return False


def undisturbed(view: ProgressView, *, show_plan: bool = True) -> Listener:
    """A view as a listener whose stream may go away.

    Args:
        view: What shows the events.
        show_plan: Whether a plan is shown; without it there are its notes.
    """
    deaf = False

    def listen(event: Event) -> None:
        nonlocal deaf
        if deaf:
            return
        told: Sequence[Event] = [event]
        if isinstance(event, PlanReady) and not show_plan:
            told = [Note(note) for note in event.plan.notes]
        try:
            for each in told:
                view.hear(each)
        except OSError:  # the terminal or pipe is gone: training goes on all the same
            deaf = True

    return listen


def epoch_line(event: EpochDone) -> str:
    """One finished epoch in one line."""
    width = len(str(event.epochs))
    mark = "  best so far" if event.best else ""
    return (
        f"{event.phase} {event.epoch:>{width}}/{event.epochs}  train loss {event.train_loss:.3f}  "
        f"val loss {event.val_loss:.3f}  {measured(event)}  {duration(event.seconds)}{mark}"
    )


def measured(event: EpochDone) -> str:
    """What the validation images say after an epoch, in two words."""
    for name, value in event.values.items():
        return f"val {measure_name(name)} {written(measure_name(name), value)}"
    return f"val accuracy {percent(event.val_accuracy)}"


class ProgressView:
    """What every view of a running job has in common: which event means what."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def hear(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Progress():
                self.stage(event.stage, event.done, event.total)
            case Note():
                self.line(f"note: {event.text}")
            case PlanReady():
                self.plan(event.plan)
            case PhaseStarted():
                self.phase(event)
            case StepDone():
                self.step(event)
            case EpochDone():
                self.epoch(event)
            case _:  # checkpoints and the end: the result tells what matters of them
                pass

    def stage(self, stage: str, done: int, total: int) -> None:
        """Show how far a piece of work has come."""
        raise NotImplementedError

    def phase(self, event: PhaseStarted) -> None:
        """Show that a phase begins."""
        raise NotImplementedError

    def step(self, event: StepDone) -> None:
        """Show one optimizer step."""
        raise NotImplementedError

    def epoch(self, event: EpochDone) -> None:
        """Show a finished epoch."""
        self.line(epoch_line(event))

    def plan(self, plan: Plan) -> None:
        """Show what will be done."""
        for line in [*str(plan).splitlines(), ""]:
            self.line(line)

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.stream.write(f"{printable(text)}\n")
        self.stream.flush()

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Make room while something else is printed."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines(ProgressView):
    """Plain lines without control characters, and few of them."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._stage, self._due = "", 0.0
        self._phase_started, self._phase_done, self._phase_first, self._phase_steps = 0.0, 0, 0, 0

    def stage(self, stage: str, done: int, total: int) -> None:
        """Name the stage, then say now and then how far it has come."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._due = stage, now + _PATIENCE
            if total == 0 and done == 0:  # nobody may tell how long this one takes: say at once what is going on
                self.line(stage)
                self._due = now + _PLAIN_EVERY
        elif now >= self._due:
            self._due = now + _PLAIN_EVERY
            self.line(f"{stage}: {count(done)} of {count(total)}" if total else f"{stage}: {count(done)}")

    def phase(self, event: PhaseStarted) -> None:
        """Note where the phase begins: its epochs have lines of their own."""
        self._stage = ""
        self._phase_started, self._due = self._clock(), self._clock() + _PLAIN_EVERY
        self._phase_first = self._phase_done = event.done_steps
        self._phase_steps = event.steps

    def step(self, event: StepDone) -> None:
        """Say now and then how far the phase has come."""
        self._phase_done += 1
        now = self._clock()
        if now >= self._due:
            self._due = now + _PLAIN_EVERY
            each = (now - self._phase_started) / max(1, self._phase_done - self._phase_first)
            left = duration(each * (self._phase_steps - self._phase_done))
            self.line(f"{event.phase} epoch {event.epoch}: step {count(self._phase_done)} of {count(self._phase_steps)}"
                      f", loss {event.loss:.3f}, {left} left")  # fmt: skip
