"""`zoo plugins new`: the files of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli import render
from zoo.cli.options import argument, option
from zoo.cli.output import Answer, Json, say
from zoo.models.plugins import scaffold

_DIR = "Where to; must not exist. Default: ./adaptzoo-NAME."


def command(
    name: Annotated[str, argument("NAME", "The plugin's name: lower case letters, digits, '_' and '-'.")],
    directory: Annotated[Path | None, option("--dir", metavar="FOLDER", help=_DIR)] = None,
    module: Annotated[
        bool, typer.Option("--module", help="With a module that registers an architecture of its own with timm.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """Write the files of a new plugin, with a test that passes as it stands.

    For example:

        zoo plugins new fir
        zoo plugins new fir --module --dir work/fir
    """
    plugin = scaffold.create(name, directory, module=module)
    folder = render.shell_path(plugin.folder)
    document = {"name": plugin.name, "distribution": plugin.distribution, "folder": folder, "files": list(plugin.files)}

    def show() -> None:
        say("\n  ".join([f"{plugin.distribution}, in {folder}", *plugin.files]))
        say(f"\nnext:\n  zoo plugins install {folder}/\n  zoo plugins check {plugin.name}\n  python -m pytest {folder}")

    return Answer(document, show, as_json)
