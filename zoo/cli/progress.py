"""What a person sees while a command takes long: moving bars on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO

from zoo.cli.output import on_terminal, rank
from zoo.events import Listener, ignore
from zoo.runs.progress_lines import Lines, ProgressView, undisturbed


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
            yield undisturbed(view, show_plan=show_plan)
        finally:
            with contextlib.suppress(OSError):
                view.close()


def _view(stream: IO[str]) -> ProgressView:
    if not on_terminal(stream):
        return Lines(stream)
    from zoo.cli.bars import Bars  # rich is slow to import, and of no use anywhere but on a terminal

    return Bars(stream)
