"""What a person sees while something takes long: moving bars on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from zoo.cli import render
from zoo.cli.output import on_terminal, printable, rank
from zoo.cli.text import duration, percent
from zoo.engine.events import EpochDone, Event, Listener, Note, PhaseStarted, PlanReady, Progress, StepDone, ignore

_PATIENCE = 2.0  # seconds that something may take before it has to say so
_PLAIN_EVERY = 15.0  # seconds between plain lines about one piece of work
_REDRAW_EVERY = 0.1  # seconds between two drawings of the bars


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
    view = (_Bars if on_terminal(sys.stderr) else _Lines)(sys.stderr)
    view.stage(first, 0, 0)
    deaf = False

    def listen(event: Event) -> None:
        nonlocal deaf
        if deaf or (isinstance(event, PlanReady) and not show_plan):
            return
        try:
            view.hear(event)
        except OSError:  # the terminal or pipe is gone: training goes on all the same
            deaf = True

    try:
        yield listen
    finally:
        with contextlib.suppress(OSError):
            view.close()


def epoch_line(event: EpochDone) -> str:
    """One finished epoch in one line."""
    width = len(str(event.epochs))
    mark = "  best so far" if event.best else ""
    return (
        f"{event.phase} {event.epoch:>{width}}/{event.epochs}  train loss {event.train_loss:.3f}  "
        f"val loss {event.val_loss:.3f}  val accuracy {percent(event.val_accuracy)}  {duration(event.seconds)}{mark}"
    )


class _View:
    """What both kinds of view have in common: which event means what."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def hear(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Progress():
                self.stage(event.stage, event.done, event.total)
            case Note():
                self.line(f"note: {printable(event.text)}")
            case PlanReady():
                with self.aside():
                    render.plan(event.plan.record(), self.stream)
                    print(file=self.stream, flush=True)
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

    def line(self, text: str) -> None:
        """Write a line that stays."""
        print(text, file=self.stream, flush=True)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Keep the stream free while something else is printed."""
        yield

    def close(self) -> None:
        """Leave the terminal as it was."""


class _Lines(_View):
    """Plain lines without control characters, and few of them."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._stage, self._due = "", 0.0
        self._phase_started, self._phase_done, self._phase_first, self._phase_steps = 0.0, 0, 0, 0

    def stage(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        if stage != self._stage:
            self._stage, self._due = stage, now + _PATIENCE
            if total == 0 and done == 0:  # nobody may tell how long this one takes: say at once what is going on
                self.line(stage)
                self._due = now + _PLAIN_EVERY
        elif now >= self._due:
            self._due = now + _PLAIN_EVERY
            self.line(f"{stage}: {done:,} of {total:,}" if total else f"{stage}: {done:,}")

    def phase(self, event: PhaseStarted) -> None:
        self._stage = ""
        self._phase_started, self._due = self._clock(), self._clock() + _PLAIN_EVERY
        self._phase_first = self._phase_done = event.done_steps
        self._phase_steps = event.steps

    def step(self, event: StepDone) -> None:
        self._phase_done += 1
        now = self._clock()
        if now >= self._due:
            self._due = now + _PLAIN_EVERY
            each = (now - self._phase_started) / max(1, self._phase_done - self._phase_first)
            left = duration(each * (self._phase_steps - self._phase_done))
            self.line(f"{event.phase} epoch {event.epoch}: step {self._phase_done:,} of {self._phase_steps:,}, "
                      f"loss {event.loss:.3f}, {left} left")  # fmt: skip


class _Bars(_View):
    """One bar for the phase and one for what happens beside it.

    Nothing draws in the background: a second thread would be alive when the loader's processes are forked.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        plain: dict[str, Any] = {"markup": False}
        self._bars = Bars(
            TextColumn("{task.description}", **plain),
            BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", **plain),
            TimeRemainingColumn(compact=True),
            console=Console(file=stream, highlight=False),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._bars.start()
        self._stage_task: Any = None
        self._phase_task: Any = None
        self._stage_name = self._accuracy = ""
        self._loss: float | None = None
        self._epochs = 0
        self._drawn = 0.0

    def stage(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage_name:
            self._end_stage()
            self._stage_name = stage
            self._stage_task = self._bars.add_task(printable(stage), total=total or None, note="")
        self._bars.update(self._stage_task, completed=done, total=total or None)
        self._draw(now=done == 0)
        if total and done >= total:
            self._end_stage()

    def phase(self, event: PhaseStarted) -> None:
        self._end_stage()
        if self._phase_task is not None:
            self._bars.remove_task(self._phase_task)
        self._loss, self._accuracy, self._epochs = None, "", event.epochs
        self._phase_task = self._bars.add_task(event.phase, total=event.steps, completed=event.done_steps, note="")
        self._draw(now=True)

    def step(self, event: StepDone) -> None:
        self._end_stage()
        # A moving mean: single steps jump too much to be read.
        self._loss = event.loss if self._loss is None else 0.9 * self._loss + 0.1 * event.loss
        note = f"loss {self._loss:.3f}{self._accuracy}"
        self._bars.update(
            self._phase_task, advance=1, description=f"{event.phase} {event.epoch}/{self._epochs}", note=note
        )
        self._draw()

    def epoch(self, event: EpochDone) -> None:
        self._end_stage()
        self._accuracy = f"  val accuracy {percent(event.val_accuracy)}"
        super().epoch(event)

    def line(self, text: str) -> None:
        self._bars.console.print(text, markup=False, soft_wrap=True)
        self._draw(now=True)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self._end_stage()
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

    def close(self) -> None:
        self._end_stage()
        if self._phase_task is not None:
            self._bars.remove_task(self._phase_task)
        self._bars.stop()

    def _end_stage(self) -> None:
        if self._stage_task is not None:
            self._bars.remove_task(self._stage_task)
        self._stage_task, self._stage_name = None, ""

    def _draw(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn >= _REDRAW_EVERY:
            self._drawn = time.monotonic()
            self._bars.refresh()
