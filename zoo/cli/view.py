"""Views of a running job: what every one of them shows, and the line of an epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

from zoo.base.text import duration, percent
from zoo.cli import render
from zoo.cli.output import printable
from zoo.events import EpochDone, Event, Note, PhaseStarted, PlanReady, Progress, StepDone
from zoo.tasks.schema import MEASURES


def epoch_line(event: EpochDone) -> str:
    """One finished epoch in one line."""
    width = len(str(event.epochs))
    mark = "  best so far" if event.best else ""
    return (
        f"{event.phase} {event.epoch:>{width}}/{event.epochs}  train loss {event.train_loss:.3f}  "
        f"val loss {event.val_loss:.3f}  {measured(event)}  {duration(event.seconds)}{mark}"
    )


def measured(event: EpochDone) -> str:
    """What the choosing images say after an epoch, in two words."""
    for name, value in event.values.items():
        return f"val {MEASURES.get(name, name)} {value:.3f}" if name == "score" else f"val mAP {percent(value)}"
    return f"val accuracy {percent(event.val_accuracy)}"


class View:
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
        print(printable(text), file=self.stream, flush=True)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Keep the stream free while something else is printed."""
        yield

    def close(self) -> None:
        """Leave the terminal as it was."""
