"""Child processes: started apart from our terminal, handed the signals we get, and ended when we are."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from zoo import version

STOPS = (signal.SIGINT, signal.SIGTERM)  # the signals that mean "stop"


@contextlib.contextmanager
def catching(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it, signals that mean "stop" go to the handler. Only Python's main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class Children:
    """Processes that are handed the signals we get."""

    def __init__(self) -> None:
        self.members: list[subprocess.Popen[bytes]] = []
        self.killed: list[subprocess.Popen[bytes]] = []
        self.signals: list[int] = []  # all that came, in order

    def start(self, command: Sequence[str], env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start one more."""
        # In a session of its own: a Ctrl-C on the terminal reaches it through this process, and so only once.
        member = subprocess.Popen(command, env=env, start_new_session=True, **streams)
        self.members.append(member)
        return member

    def hand_on(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self.signals.append(number)
        for member in self.members:
            if member.poll() is None:
                member.send_signal(number)

    def kill(self) -> None:
        """End at once what still runs."""
        for member in self.members:
            if member.poll() is None:
                self.killed.append(member)
                member.kill()
                member.wait()


@contextlib.contextmanager
def supervising() -> Iterator[Children]:
    """Children that get our signals within the block, and do not outlive it."""
    children = Children()
    with catching(children.hand_on):
        try:
            yield children
        finally:
            children.kill()


def environment() -> dict[str, str]:
    """This environment, in which the same zoo is found, be it a checkout that nobody installed."""
    home = Path(version.__file__).resolve().parents[1]
    if home.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, str(home)]))}


def killer(code: int) -> str:
    """The name of the signal that ended a process with this return code; empty if none did."""
    return "" if code >= 0 else next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
