"""Results of commands, and output to stdout and stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Annotated, Any

import typer

from zoo.errors import ZooError
from zoo.errors import printable as printable  # part of this module's interface

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]

_C1 = re.compile("[\x7f-\x9f]")


class WrongUsage(ZooError):
    """The command line is wrong; exit code 2."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A command's result in both of its forms."""

    document: Any  # plain values, for `--json`
    show: Callable[[], None]  # prints the same as text, on stdout
    as_json: bool
    exit_code: int = 0


def rank() -> int:
    """This process's number among those of one launch; 0 prints. Read from the launcher's variables, not from torch."""
    text = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    return int(text) if text.isdigit() else 0


def on_terminal(stream: IO[str]) -> bool:
    """Whether the stream is a terminal that shows colours and moving bars."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def without_token(text: str) -> str:
    """Text without the user's Hub token, which a library's error may quote."""
    client: Any = sys.modules.get("zoo.models.hub_client")  # not loaded: nothing has read the token yet
    return str(client.without_token(text)) if client is not None else text


def say(text: str = "") -> None:
    """Write a line of a result to stdout."""
    print(printable(text, lines=True))


def warn(text: str) -> None:
    """Write a line that is not part of the result to stderr."""
    print(printable(text, lines=True), file=sys.stderr)


def write_json(document: Any, stream: IO[str]) -> None:
    """Write one JSON document and a line end."""
    unicode = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(document, indent=2, ensure_ascii=not unicode, default=str)
    # JSON escapes C0 control characters by itself, but terminals interpret C1 ones too.
    stream.write(_C1.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n")
