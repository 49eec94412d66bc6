"""`zoo plugins search`: what could be installed."""

from __future__ import annotations

from typing import Annotated

from zoo.base import registry
from zoo.cli import render
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.render import Column
from zoo.errors import PluginError
from zoo.models.plugins import discovery

_SHOWN = 4  # backbones named in a row; `zoo plugins show` has them all


def command(
    text: Annotated[
        str | None, argument("TEXT", "Part of a plugin's name, its description or a backbone's name.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Search the plugins that the registry knows, your own registry file included.

    For example:

        zoo plugins search
        zoo plugins search squeezenet
    """
    versions = {item.name: item.version for item in discovery.scan().everything}
    rows = [
        {
            "name": entry.name,
            "requirement": entry.requirement,
            "installed": versions.get(entry.name),
            "published": entry.published,
            "backbones": list(entry.backbones),
            "summary": entry.summary,
            "homepage": entry.homepage,
        }
        for entry in registry.load().plugins.values()
        if text is None
        or text.lower() in " ".join((entry.name, entry.requirement, entry.summary, *entry.backbones)).lower()
    ]
    if not rows:
        raise PluginError(
            f"the registry knows no plugin for {text!r}",
            fix="see all that it knows: zoo plugins search; or write one: zoo plugins new NAME",
        )

    def show() -> None:
        columns = [Column("plugin"), Column("installed"), Column("backbones", wrap=True), Column("summary", wrap=True)]
        cells = [[str(row["name"]), str(row["installed"] or "no"), _some(row["backbones"]), str(row["summary"])]
                 for row in rows]  # fmt: skip
        render.table(columns, cells)
        absent = [row for row in rows if row["installed"] is None]
        if absent:
            say()
            name = printable(absent[0]["name"])
            published = absent[0]["published"]
            say(f"install one: zoo plugins install {name}" if published else f"how to get one: zoo plugins show {name}")

    return Answer(rows, show, as_json)


def _some(backbones: object) -> str:
    names = [str(name) for name in backbones] if isinstance(backbones, list) else []
    more = f" +{len(names) - _SHOWN}" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "any"
