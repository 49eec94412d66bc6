"""`zoo plugins list`: what is installed."""

from __future__ import annotations

from typing import Any

from zoo.cli import render
from zoo.cli.output import Answer, Json, printable, say, warn
from zoo.cli.render import Column
from zoo.models.plugins import discovery
from zoo.models.plugins.discovery import PluginFault
from zoo.models.spec import Plugin


def command(as_json: Json = False) -> Answer:
    """List the installed plugins, the broken ones too. No plugin's code is imported.

    For example:

        zoo plugins list
    """
    found = discovery.scan()
    rows = [
        {**_identity(plugin), "status": "ok", "error": None, "backbones": offer(plugin), "summary": plugin.summary}
        for plugin in found.plugins
    ]
    rows += [
        {**_identity(fault), "status": fault.status, "error": fault.cause, "backbones": [], "summary": ""}
        for fault in found.faults
    ]
    rows.sort(key=lambda row: (str(row["name"]), str(row["distribution"])))
    used = discovery.chosen()
    hidden = [str(row["name"]) for row in rows if used is not None and row["name"] not in used]
    if hidden:
        warn(f"not in use, because ZOO_PLUGINS leaves them out: {', '.join(map(printable, hidden))}")

    def show() -> None:
        columns = [Column("plugin"), Column("distribution"), Column("version"), Column("status"),
                   Column("backbones", right=True), Column("summary", wrap=True)]  # fmt: skip
        cells = [[str(row["name"]), str(row["distribution"]), str(row["version"]), str(row["status"]),
                  _count(row["backbones"]), str(row["summary"] or row["error"] or "")] for row in rows]  # fmt: skip
        render.table(columns, cells)
        for fault in found.faults:
            if fault.fix:
                say(f"{printable(fault.name)} ({printable(fault.distribution)}): {printable(fault.fix)}")

    return Answer(rows, show, as_json)


def _identity(entry: Plugin | PluginFault) -> dict[str, Any]:
    return {"name": entry.name, "distribution": entry.distribution, "version": entry.version}


def offer(plugin: Plugin) -> list[str]:
    """The names that a plugin offers, or the one pattern that stands for all of a dynamic plugin."""
    names = [spec.name for spec in plugin.backbones]
    return names + ([f"{plugin.name}/<architecture>"] if plugin.dynamic else [])


def _count(backbones: Any) -> str:
    return "any" if any("/" in name for name in backbones) else str(len(backbones) or "-")
