"""`zoo cache`: decoded images and cached features, which make the next run faster."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.base import cache, files
from zoo.base.cache import Stored
from zoo.base.durations import parse_seconds
from zoo.base.text import duration, size
from zoo.cli import render
from zoo.cli.options import option
from zoo.cli.output import Answer, Json, WrongUsage, say
from zoo.cli.render import Column

app = typer.Typer(help="Decoded images and cached features for the next run.", no_args_is_help=True)


@app.command("list")
def list_command(as_json: Json = False) -> Answer:
    """List the cache, the last used first. `zoo adapt` computes again what is missing.

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
        str | None, option("--older-than", metavar="TIME", help="Only what was unused for this long: 30m, 12h, 7d.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Clear the cache. Runs that use it are not disturbed; files that are being written stay.

    For example:

        zoo cache clear --older-than 7d
    """
    seconds = 0.0 if older_than is None else parse_seconds(older_than)
    if seconds is None:
        what = f"--older-than takes a time such as 30m, 12h or 7d, not {older_than!r}"
        raise WrongUsage(what, fix="for example: --older-than 7d")
    removed = cache.clear(seconds)

    def show() -> None:
        _table(removed)
        say(f"removed {size(sum(entry.bytes for entry in removed)) if removed else 'nothing'}")

    return Answer([entry.record() for entry in removed], show, as_json)


def _table(entries: list[Stored]) -> None:
    if not entries:
        return
    columns = [Column("kind"), Column("size", right=True), Column("used", right=True), Column("what for", wrap=True)]
    rows = [[entry.kind, size(entry.bytes), f"{duration(entry.age)} ago", entry.about] for entry in entries]
    render.table(columns, rows)
