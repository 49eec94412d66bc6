"""What a person sees while something takes long: moving bars on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

from zoo.base.text import count, duration
from zoo.cli.output import on_terminal, rank
from zoo.cli.view import View
from zoo.events import Event, Listener, PhaseStarted, PlanReady, StepDone, ignore

_PATIENCE = 2.0  # seconds that something may take before it has to say so
_PLAIN_EVERY = 15.0  # seconds between plain lines about one piece of work


@contextlib.contextmanager
def shown(first: str, *, show_plan: bool = True) -> Iterator[Listener]:
    """Show progress while the block runs.

    Args:
        first: What happens until the first event, such as "loading torch and timm".
        show_plan: Whether to print the plan when it is settled.
    """
    if rank() > 0:  # the first process speaks for all
        yield ignore
        return
    with contextlib.redirect_stdout(sys.stderr):  # what a library prints is not the result
        view = _view(sys.stderr)
        view.stage(first, 0, 0)
        try:
            yield _listener(view, show_plan)
        finally:
            with contextlib.suppress(OSError):
                view.close()


def _view(stream: IO[str]) -> View:
    if not on_terminal(stream):
        return Lines(stream)
    from zoo.cli.bars import Bars  # rich is slow to import, and of no use anywhere but on a terminal

    return Bars(stream)


def _listener(view: View, show_plan: bool) -> Listener:
    deaf = False

    def listen(event: Event) -> None:
        nonlocal deaf
        if deaf or (isinstance(event, PlanReady) and not show_plan):
            return
        try:
            view.hear(event)
        except OSError:  # the terminal or pipe is gone: training goes on all the same
            deaf = True

    return listen


class Lines(View):
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
