"""Progress on a terminal: moving bars, by rich."""

from __future__ import annotations

import time
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from zoo.cli import render
from zoo.cli.output import printable
from zoo.events import EpochDone, PhaseStarted, StepDone
from zoo.recipes.plan import Plan
from zoo.runs.progress_lines import ProgressView, measured

_REDRAW_EVERY = 0.1  # seconds between two drawings


class Bars(ProgressView):
    """One bar for the phase and one for the current stage.

    Nothing draws in the background: a second thread would be alive when the loader's processes are forked.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            _Bar(bar_width=None, table_column=Column(ratio=1)),
            _Count(),
            TextColumn("{task.fields[note]}", markup=False),
            _TimeLeft(compact=True),
            console=Console(file=stream, highlight=False),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._bars.start()
        self._stage: tuple[str, TaskID] | None = None
        self._phase: TaskID | None = None
        self._loss: float | None = None
        self._accuracy = ""
        self._epochs = 0
        self._drawn = 0.0

    def stage(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar; without a known total there are only words."""
        if self._stage is None or self._stage[0] != stage:
            self._end_stage()
            text = printable(stage) if total else f"{printable(stage)} …"
            self._stage = stage, self._bars.add_task(text, total=total or None, note="")
        self._bars.update(self._stage[1], completed=done, total=total or None)
        self._draw(now=done == 0)

    def phase(self, event: PhaseStarted) -> None:
        """Begin the phase's bar."""
        self._end_phase()
        self._loss, self._accuracy, self._epochs = None, "", event.epochs
        done = event.done_steps
        self._phase = self._bars.add_task(printable(event.phase), total=event.steps, completed=done, note="")
        self._draw(now=True)

    def step(self, event: StepDone) -> None:
        """Move the phase's bar."""
        self._end_stage()
        if self._phase is None:
            return
        # A moving mean: single steps jump too much to be read.
        self._loss = event.loss if self._loss is None else 0.9 * self._loss + 0.1 * event.loss
        epoch = printable(f"{event.phase} {event.epoch}/{self._epochs}")
        self._bars.update(self._phase, advance=1, description=epoch, note=f"loss {self._loss:.3f}{self._accuracy}")
        self._draw()

    def epoch(self, event: EpochDone) -> None:
        """Write the epoch's line above the bars."""
        self._end_stage()
        self._accuracy = f", {measured(event)}"
        if event.epoch == event.epochs:
            self._end_phase()
        super().epoch(event)

    def line(self, text: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(printable(text), markup=False, soft_wrap=True)
        self._draw(now=True)

    def plan(self, plan: Plan) -> None:
        """Take the bars away while the plan is printed."""
        self._end_stage()
        self._bars.stop()
        try:
            render.plan(plan.record(), self.stream)
            print(file=self.stream, flush=True)
        finally:
            self._bars.start()

    def close(self) -> None:
        """Remove the bars and show the cursor again."""
        self._end_phase()
        self._bars.stop()

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._bars.remove_task(self._stage[1])
        self._stage = None

    def _end_phase(self) -> None:
        self._end_stage()
        if self._phase is not None:
            self._bars.remove_task(self._phase)
        self._phase = None

    def _draw(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn >= _REDRAW_EVERY:
            self._drawn = time.monotonic()
            self._bars.refresh()


class _Bar(BarColumn):
    def render(self, task: Task) -> Any:
        return super().render(task) if task.total else Text("")


class _Count(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text("")


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text("")
