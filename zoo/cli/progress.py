"""Progress of a long command on stderr: moving bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import IO

from zoo.cli.output import on_terminal, rank
from zoo.events import Event, Listener, ResultReady, ignore
from zoo.runs.progress_lines import Lines, ProgressView, undisturbed


@contextlib.contextmanager
def shown(
    first: str, *, show_plan: bool = True, result: Callable[[ResultReady], None] | None = None
) -> Iterator[Listener]:
    """Show progress while the block runs, with the words of `first` until the first event.

    `result` prints what was measured, on stdout, before the report is drawn; None: that is left for the end.
    """
    if rank() > 0:  # the first process speaks for all
        yield ignore
        return
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a library prints is not the result
        view = _view(sys.stderr)
        view.stage(first, 0, 0)
        show = undisturbed(view, show_plan=show_plan)

        collecting = waiting = gc.isenabled()

        def listen(event: Event) -> None:
            nonlocal waiting
            if waiting:  # the first event: everything is imported, and stays
                waiting = False
                gc.freeze()
                gc.enable()
            if isinstance(event, ResultReady) and result is not None:
                with contextlib.suppress(OSError), view.aside(), contextlib.redirect_stdout(stdout):
                    result(event)
                    stdout.flush()
            else:
                show(event)

        gc.disable()  # importing torch and timm leaves nothing to collect, and looking takes a fifth of the time
        try:
            yield listen
        finally:
            if collecting:
                gc.enable()
            with contextlib.suppress(OSError):
                view.close()


def _view(stream: IO[str]) -> ProgressView:
    if not on_terminal(stream):
        return Lines(stream)
    from zoo.cli.bars import Bars  # rich is slow to import, and of no use anywhere but on a terminal

    return Bars(stream)
