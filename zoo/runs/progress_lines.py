"""Progress of a running job as plain lines, for a terminal, a notebook or a log."""

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

_PATIENCE = 2.0  # seconds before the first progress line of a stage
_PLAIN_EVERY = 15.0  # seconds between progress lines of one stage


def listener(progress: bool | None = None) -> Listener:
    """Shows progress on stderr, if `progress`; None: on a terminal or in a notebook only."""
    from zoo.training.machine import process_index  # heavy, and loaded by now

    if process_index() > 0 or not (_is_watched() if progress is None else progress):  # only the main process reports
        return ignore
    return undisturbed(Lines(sys.stderr))


def _is_watched() -> bool:
    """Whether stderr is a terminal or a notebook's."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    with contextlib.suppress(AttributeError, ValueError):  # stderr is missing or closed
        return sys.stderr.isatty() or (shell is not None and shell() is not None)
    return False


def undisturbed(view: ProgressView, *, show_plan: bool = True) -> Listener:
    """A view as a listener that goes silent when its stream breaks; without show_plan, a plan shows its notes only."""
    broken = False

    def listen(event: Event) -> None:
        nonlocal broken
        if broken:
            return
        events: Sequence[Event] = [event]
        if isinstance(event, PlanReady) and not show_plan:
            events = [Note(note) for note in event.plan.notes]
        try:
            for each in events:
                view.hear(each)
        except OSError:  # the terminal or pipe is gone; training goes on
            broken = True

    return listen


def epoch_line(event: EpochDone) -> str:
    """A finished epoch as one line."""
    width, mark = len(str(event.epochs)), "  best so far" if event.best else ""
    return (
        f"{event.phase} {event.epoch:>{width}}/{event.epochs}  train loss {event.train_loss:.3f}  "
        f"val loss {event.val_loss:.3f}  {measured(event)}  {duration(event.seconds)}{mark}"
    )


def measured(event: EpochDone) -> str:
    """The main validation measure after an epoch: its name and value."""
    for name, value in event.values.items():
        return f"val {measure_name(name)} {written(measure_name(name), value)}"
    return f"val accuracy {percent(event.val_accuracy)}"


class ProgressView:
    """Base of the views of a running job: dispatches events to methods."""

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
            case _:  # checkpoints and the end: the result says what matters
                pass

    def stage(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage; a total of 0 is unknown."""
        raise NotImplementedError

    def phase(self, event: PhaseStarted) -> None:
        """Show the start of a phase."""
        raise NotImplementedError

    def step(self, event: StepDone) -> None:
        """Show one optimizer step."""
        raise NotImplementedError

    def epoch(self, event: EpochDone) -> None:
        """Show a finished epoch."""
        self.line(epoch_line(event))

    def plan(self, plan: Plan) -> None:
        """Show the plan."""
        for line in [*str(plan).splitlines(), ""]:
            self.line(line)

    def line(self, text: str) -> None:
        """Write a permanent line."""
        self.stream.write(f"{printable(text)}\n")
        self.stream.flush()

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Clear the view while something else is printed."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Restore the terminal."""


class Lines(ProgressView):
    """A few plain lines without control characters."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._stage, self._due = "", 0.0
        self._phase_started, self._phase_done, self._phase_first, self._phase_steps = 0.0, 0, 0, 0

    def stage(self, stage: str, done: int, total: int) -> None:
        """Name the stage, then show its progress now and then."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._due = stage, now + _PATIENCE
            if total == 0 and done == 0:  # its length may never be known: name it at once
                self.line(stage)
                self._due = now + _PLAIN_EVERY
        elif now >= self._due:
            self._due = now + _PLAIN_EVERY
            self.line(f"{stage}: {count(done)} of {count(total)}" if total else f"{stage}: {count(done)}")

    def phase(self, event: PhaseStarted) -> None:
        """Start counting; epochs have their own lines."""
        self._stage = ""
        self._phase_started, self._due = self._clock(), self._clock() + _PLAIN_EVERY
        self._phase_first = self._phase_done = event.done_steps
        self._phase_steps = event.steps

    def step(self, event: StepDone) -> None:
        """Show the progress of the phase now and then."""
        self._phase_done += 1
        now = self._clock()
        if now >= self._due:
            self._due = now + _PLAIN_EVERY
            each = (now - self._phase_started) / max(1, self._phase_done - self._phase_first)
            left = duration(each * (self._phase_steps - self._phase_done))
            self.line(f"{event.phase} epoch {event.epoch}: step {count(self._phase_done)} of {count(self._phase_steps)}"
                      f", loss {event.loss:.3f}, {left} left")  # fmt: skip
