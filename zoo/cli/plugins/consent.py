"""Asking before an installer runs, which both installing and removing do."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zoo.cli import output
from zoo.errors import ZooError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def ask(question: str, *, yes: bool, as_json: bool, command: str) -> None:
    """Ask on stderr; come back only with a yes.

    Args:
        question: Ends with a question mark.
        yes: The answer was given beforehand.
        as_json: Nobody is there to answer.
        command: What to type instead where nobody can be asked.

    Raises:
        ZooError: The answer is no, or nobody can be asked.
    """
    if yes:
        return
    if as_json or not output.on_terminal(sys.stdin):
        raise ZooError("nothing was changed: it needs a yes, and there is nobody to ask", fix=command)
    # Not typer.confirm: a part of its prompt goes to stdout, which is for results.
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ZooError("nothing was changed")


def follow(line: str) -> None:
    """Show a line of the installer, on stderr; not the hundred ones about what is there already."""
    if line and "already satisfied" not in line:
        output.warn(f"  {output.printable(line)}")
