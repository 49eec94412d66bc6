"""`zoo plugins`: find, install, check, write and remove plugins."""

from __future__ import annotations

import typer

from zoo.cli.plugins import check, install, new, search, show, uninstall
from zoo.cli.plugins import list as list_command

app = typer.Typer(help="Find, install, check, write and remove plugins.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Find, install, check, write and remove plugins."""


app.command("list")(list_command.command)
app.command("search")(search.command)
app.command("show")(show.command)
app.command("install")(install.command)
app.command("uninstall")(uninstall.command)
app.command("check")(check.command)
app.command("new")(new.command)
