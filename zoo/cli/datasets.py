"""`zoo datasets`: the data sets that have a name."""

from __future__ import annotations

from zoo.base import registry
from zoo.base.references import HUB_DATA
from zoo.cli import render
from zoo.cli.output import Answer, Json, say
from zoo.cli.render import Column

_FACTS = ("config", "revision", "image", "label", "splits", "classes", "license", "gated", "page")


def command(as_json: Json = False) -> Answer:
    """List the data sets that have a name; any folder, table, archive or hf:ORG/NAME works as well.

    Your own names go into ~/.config/zoo/registry.yaml.

    For example:

        zoo datasets
    """
    entries = list(registry.load().datasets.values())
    rows = [
        {
            "name": entry.name,
            "summary": entry.summary,
            "source": f"{HUB_DATA}{entry.hub}" if entry.hub else f"builtin:{entry.builtin}",
            **{key: getattr(entry, key) for key in _FACTS},
        }
        for entry in entries
    ]

    def show() -> None:
        columns = [Column("name"), Column("classes", right=True), Column("splits"), Column("licence"),
                   Column("source", wrap=True), Column("summary", wrap=True)]  # fmt: skip
        cells = [[entry.name, str(entry.classes or "-"), ", ".join(entry.splits) or "-", entry.license or "-",
                  str(row["source"]), entry.summary] for entry, row in zip(entries, rows, strict=True)]  # fmt: skip
        render.table(columns, cells)
        for entry in entries:
            if entry.gated:
                say(f"{entry.name} is gated: accept its terms at {entry.page}, then run: hf auth login")

    return Answer(rows, show, as_json)
