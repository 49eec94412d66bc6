"""`zoo cache`: the decoded images and activations that are kept, to make the next run quick."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.base import cache, files
from zoo.base.cache import Stored
from zoo.base.durations import parse_seconds
from zoo.base.text import duration, size
from zoo.cli import render
from zoo.cli.output import Answer, Json, WrongUsage, say
from zoo.cli.render import Column

app = typer.Typer(help="Decoded images and activations that are kept for the next run.", no_args_is_help=True)


@app.command("list")
def list_command(as_json: Json = False) -> Answer:
    """List what is kept, the last used first. `zoo adapt` makes again what is missing.

    For example:

        zoo cache list
    """
    found = cache.stored()

    def show() -> None:
        _table(found)
        total = size(sum(entry.bytes for entry in found)) if found else "nothing"
        say(f"{total} in {render.shell_path(files.cache_dir())}")

    return Answer([entry.record() for entry in found], show, as_json)


@app.command("clear")
def clear_command(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME", help="Only what was not used for so long: 30m, 12h, 7d.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Remove what is kept. A run that uses it goes on; what is just being written stays.

    For example:

        zoo cache clear --older-than 7d
    """  # fmt: skip
    removed = cache.clear(0.0 if older_than is None else _seconds(older_than))

    def show() -> None:
        _table(removed)
        say(f"removed {size(sum(entry.bytes for entry in removed)) if removed else 'nothing'}")

    return Answer([entry.record() for entry in removed], show, as_json)


def _seconds(text: str) -> float:
    found = parse_seconds(text)
    if found is None:
        why = f"--older-than takes a time such as 30m, 12h or 7d, not {text!r}"
        raise WrongUsage(why, fix="for example: --older-than 7d")
    return found


def _table(entries: list[Stored]) -> None:
    if not entries:
        return
    columns = [Column("kind"), Column("size", right=True), Column("used", right=True), Column("what for", wrap=True)]
    rows = [[entry.kind, size(entry.bytes), f"{duration(entry.age)} ago", entry.about] for entry in entries]
    render.table(columns, rows)
