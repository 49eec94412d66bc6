"""`zoo plugins`: what is installed."""

from __future__ import annotations

import typer

from zoo import plugins
from zoo.cli import render
from zoo.cli.output import Answer, Json, say
from zoo.cli.render import Column

app = typer.Typer(help="See which plugins are installed and whether they work.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """See which plugins are installed and whether they work."""


@app.command("list")
def command(as_json: Json = False) -> Answer:
    """List the installed plugins, the broken ones too. No plugin's code is imported.

    For example:

        zoo plugins list
    """
    found = plugins.discover()
    rows = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "status": "ok",
            "error": None,
            "backbones": [spec.name for spec in plugin.backbones]
            + ([f"{plugin.name}/<architecture>"] if plugin.dynamic else []),
            "summary": plugin.summary,
        }
        for plugin in found.plugins
    ]
    rows += [
        {
            "name": fault.name,
            "distribution": fault.distribution,
            "version": fault.version,
            "status": fault.status,
            "error": fault.cause,
            "backbones": [],
            "summary": "",
        }
        for fault in found.faults
    ]
    rows.sort(key=lambda row: (str(row["name"]), str(row["distribution"])))

    def show() -> None:
        columns = [Column("plugin"), Column("distribution"), Column("version"), Column("status"),
                   Column("backbones", right=True), Column("summary", wrap=True)]  # fmt: skip
        cells = [[str(row["name"]), str(row["distribution"]), str(row["version"]), str(row["status"]),
                  _offer(row["backbones"]), str(row["summary"] or row["error"] or "")] for row in rows]  # fmt: skip
        render.table(columns, cells)
        for fault in found.faults:
            if fault.fix:
                say(f"{fault.name} ({fault.distribution}): {fault.fix}")

    return Answer(rows, show, as_json)


def _offer(backbones: object) -> str:
    if not isinstance(backbones, list):
        return "-"
    return "any" if any("/" in name for name in backbones) else str(len(backbones))
