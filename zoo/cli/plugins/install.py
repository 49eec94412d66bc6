"""`zoo plugins install`: install a plugin, after asking."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from zoo.base.text import plural
from zoo.cli import output
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say, warn
from zoo.errors import ZooError
from zoo.models.plugins import install
from zoo.models.plugins.install import Installed

_WHAT = "A name from `zoo plugins search`, a requirement such as 'adaptzoo-fir>=1.2', a wheel, or a folder."
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def command(
    what: Annotated[str, argument("WHAT", _WHAT)],
    yes: Yes = False,
    as_json: Json = False,
) -> Answer:
    """Install a plugin into this environment, after asking. Other packages, and plugins that cannot work, are refused.

    A plugin is Python with all of your rights: nothing keeps it in a sandbox. A wheel's list of files is checked before
    it is installed; a folder or a source archive has to be built first, and building runs its code. Installed packages
    keep their versions. A plugin that does not work is removed again.

    For example:

        zoo plugins install squeezenet
        zoo plugins install 'adaptzoo-fir>=1.2'
        zoo plugins install fir/dist/adaptzoo_fir-0.1.0-py3-none-any.whl
    """
    source = install.resolve(what)
    installer = install.find_installer("install", source.what)
    warn("A plugin is Python code that runs with all of your rights; nothing keeps it in a sandbox.")
    if source.runs_code:
        warn(f"This one is a {source.kind}: building it runs its code before it can be looked at. A wheel is safer.")
    if source.entry is not None:
        warn(f"The registry says of {source.entry.requirement}: {printable(source.entry.summary)}")
    question = f"Install {printable(source.what)} with {installer.name}?"
    ask(question, yes=yes, as_json=as_json, command=f"zoo plugins install {shlex.quote(what)} --yes")
    installed = install.install(source, installer, follow)
    return Answer(asdict(installed), lambda: _show(installed), as_json)


def _show(installed: Installed) -> None:
    say(f"installed {installed.distribution} {installed.version}")
    others = {name: version for name, version in installed.packages.items()
              if name != installed.distribution.replace("_", "-").lower()}  # fmt: skip
    if others:
        listed = ", ".join(f"{name} {version}" for name, version in others.items())
        say(f"and {plural(len(others), 'package')} that it needs: {listed}")
    for row in installed.plugins:
        say(f"plugin {printable(row['name'])}: {printable(', '.join(row['backbones']))}")
    for name, instead in installed.shared:
        warn(f"{name} is now offered by two plugins; write {instead}")
    first = next((name for row in installed.plugins for name in row["backbones"] if "/" not in name), None)
    say(f"\nnext:\n  zoo plugins check {printable(installed.plugins[0]['name'])}")
    if first:
        say(f"  zoo show {printable(first)}")


def ask(question: str, *, yes: bool, as_json: bool, command: str) -> None:
    """Ask on stderr; raises ZooError if the answer is no, or with the `command` to type if nobody can be asked."""
    if yes:
        return
    if as_json or not output.on_terminal(sys.stdin):
        raise ZooError("nothing was changed: this needs a yes, and nobody can be asked", fix=command)
    # Not typer.confirm: a part of its prompt goes to stdout, which is for results.
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ZooError("nothing was changed")


def follow(line: str) -> None:
    """Show a line of the installer on stderr, except those about packages that are installed already."""
    if line and "already satisfied" not in line:
        output.warn(f"  {output.printable(line)}")
