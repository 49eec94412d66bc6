"""`zoo runs`: what has been adapted here."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.base.text import count, percent
from zoo.cli import render
from zoo.cli.output import Answer, Json, say, warn
from zoo.cli.render import Column
from zoo.errors import RunError
from zoo.runs.run_folder import Run, list_runs, way_on
from zoo.tasks.schema import ONE, headline, written


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that holds the runs.")] = Path("runs"),
    as_json: Json = False,
) -> Answer:
    """List the runs, newest last: finished, interrupted and failed ones.

    For example:

        zoo runs
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is not a folder", fix="name the folder that holds the runs")
    found = list_runs(folder)
    rows = [_row(run) for run in found]

    def show() -> None:
        if not rows:
            say(f"no runs under {folder}; make one: zoo adapt resnet_nano --dataset digits")
            return
        columns = [Column("run", wrap=True), Column("status"), Column("backbone"), Column("data", wrap=True),
                   Column("strategy"), Column("accuracy", right=True), Column("images", right=True),
                   Column("date")]  # fmt: skip
        render.table(columns, [_cells(row) for row in rows])
        for run, row in zip(found, rows, strict=True):
            if row["status"] == "interrupted":
                say(f"{row['name']} is not finished: {way_on(run.record, run.path)}")

    return Answer(rows, show, as_json)


def _row(run: Run) -> dict[str, Any]:
    """The row of one run; one whose record cannot be read is "damaged", with the reason on stderr."""
    row: dict[str, Any] = {"run": str(run.path), "name": run.name, "status": "damaged"}
    record: dict[str, Any] = {}
    try:
        record = run.record
        row["status"] = record.get("status")
    except RunError as error:
        warn(str(error))

    def part(name: str) -> dict[str, Any]:
        value = record.get(name)
        return value if isinstance(value, dict) else {}

    result, stacked = part("result"), record.get("kind") == "stack"
    return row | {
        "kind": record.get("kind"),
        "backbone": part("backbone").get("name"),
        "dataset": part("dataset").get("name"),
        "strategy": part("stack").get("choice") if stacked else part("recipe").get("strategy"),
        "problem": result.get("problem", ONE) if record else None,
        "score": headline(result)[1],
        **{key: result.get(key) for key in ("accuracy", "n", "split")},
        "created": record.get("created"),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    texts = [str(row[key] or "-") for key in ("name", "status", "backbone", "dataset", "strategy")]
    return [*texts, _score(row), count(row["n"]), _date(row["created"])]


def _score(row: dict[str, Any]) -> str:
    """The headline number, with its name unless it is accuracy."""
    name = headline(row)[0]
    if row["score"] is None or name == "accuracy":
        return percent(row["score"])
    return f"{written(name, row['score'])} {name}"


def _date(created: str | None) -> str:
    """A record's time stamp as local date and time."""
    try:
        return datetime.fromisoformat(str(created)).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "-"
