"""Errors that users see: each says what happened, why, and how to put it right."""

from __future__ import annotations

import re

# C0 and C1 controls move a terminal's cursor or talk to it; the others turn text around or end a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: object, *, lines: bool = False) -> str:
    """The text without characters that control a terminal, which file and class names can contain.

    Args:
        text: Any untrusted value.
        lines: Keep line ends; otherwise the text becomes one line.
    """
    return (_CONTROL_BUT_LINES if lines else _CONTROL).sub("\ufffd", str(text))


class ZooError(Exception):
    """An error that the user can understand and put right.

    Args:
        what: What went wrong, in one sentence without a final full stop.
        why: The cause, if it is more than `what` already says.
        fix: What to do about it, ready to paste if it is a command.

    All three are made printable: messages quote names that strangers chose.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = printable(what, lines=True)
        self.why = printable(why, lines=True)
        self.fix = printable(fix, lines=True)
        super().__init__(self.what)

    def __str__(self) -> str:
        """The three parts on lines of their own, empty ones left out."""
        others = {"why": self.why, "fix": self.fix}
        return "\n".join([self.what, *(f"  {name}: {text}" for name, text in others.items() if text)])

    def record(self) -> dict[str, str]:
        """The error as plain values, the form that `--json` prints."""
        return {"what": self.what, "why": self.why, "fix": self.fix}


class ManifestError(ZooError):
    """A plugin's manifest or a registry file is not valid."""


class PluginError(ZooError):
    """A plugin cannot be found, is ambiguous, or failed while building a backbone."""


class RecipeError(ZooError):
    """Choices that contradict each other or lie outside what is possible."""


class DataError(ZooError):
    """The images or labels cannot be used as they are."""


class WeightsError(ZooError):
    """Weights cannot be reached, or do not belong to the architecture."""


class DiskError(ZooError):
    """A file cannot be written: the disk is full, or not writable.

    Args:
        full: Whether the disk is full.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", full: bool = False) -> None:
        super().__init__(what, why=why, fix=fix)
        self.full = full


class RunError(ZooError):
    """A run folder is missing, unfinished, damaged, or in use."""


class HubError(ZooError):
    """The Hub cannot be reached, refuses, or holds something unexpected."""


class TrainingError(ZooError):
    """Training cannot go on: the loss is not finite, or memory ran out."""


class TrainingInterrupted(ZooError):
    """Training was stopped from outside after its state had been saved.

    Args:
        signal_number: The signal that stopped it (2 for Ctrl-C, 15 for SIGTERM).
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", signal_number: int = 2) -> None:
        super().__init__(what, why=why, fix=fix)
        self.signal_number = signal_number
