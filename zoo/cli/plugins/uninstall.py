"""`zoo plugins uninstall`: remove a plugin, a broken one too."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Annotated

from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.plugins.install import Yes, ask, follow
from zoo.models.plugins import install


def command(
    name: Annotated[str, argument("NAME", "A plugin's name, or its distribution's.")],
    yes: Yes = False,
    as_json: Json = False,
) -> Answer:
    """Remove an installed plugin, after asking. Its code is not imported, so a broken one can be removed too.

    For example:

        zoo plugins uninstall squeezenet
    """
    target = install.find(name)
    installer = install.find_installer("uninstall", target.distribution)
    plugins = ", ".join(target.plugins)
    named = f"{printable(target.distribution)} {printable(target.version)}"
    question = f"Remove {named} (plugin {printable(plugins)})?"
    ask(question, yes=yes, as_json=as_json, command=f"zoo plugins uninstall {shlex.quote(name)} --yes")
    install.uninstall(target, installer, follow)
    return Answer(asdict(target), lambda: say(f"removed {named}"), as_json)
