"""Child processes: own sessions, forwarded signals, ended together with this process."""

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
    """Send signals that mean "stop" to the handler within the block; does nothing outside Python's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOPS}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


class Children:
    """Processes to which this process forwards its signals."""

    def __init__(self) -> None:
        self.members: list[subprocess.Popen[bytes]] = []
        self.killed: list[subprocess.Popen[bytes]] = []
        self.signals: list[int] = []  # received, in order

    def start(self, command: Sequence[str], env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start one in a session of its own: a Ctrl-C on the terminal reaches it through this process, so only once."""
        member = subprocess.Popen(command, env=env, start_new_session=True, **streams)
        self.members.append(member)
        return member

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Record a signal and send it to every running child: a signal handler."""
        self.signals.append(number)
        for member in self.members:
            if member.poll() is None:
                member.send_signal(number)

    def kill(self) -> None:
        """Kill the children that still run."""
        for member in self.members:
            if member.poll() is None:
                self.killed.append(member)
                member.kill()
                member.wait()


@contextlib.contextmanager
def supervising() -> Iterator[Children]:
    """Yield children that receive this process's signals within the block and are killed at its end."""
    children = Children()
    with catching(children.forward):
        try:
            yield children
        finally:
            children.kill()


def environment() -> dict[str, str]:
    """This environment, with a PYTHONPATH by which a child finds the same zoo, even in an uninstalled checkout."""
    home = Path(version.__file__).resolve().parents[1]
    if home.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, str(home)]))}


def killer(code: int) -> str:
    """The name of the signal that ended a process with this return code; empty if there was none."""
    return "" if code >= 0 else next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
