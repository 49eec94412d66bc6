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
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that the runs are in.", show_default=True)
    ] = Path("runs"),
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
    """What one run's record says; a record that cannot be read gives a row that says so."""
    row: dict[str, Any] = {"run": str(run.path), "name": run.name, "status": "damaged", "kind": None, "backbone": None,
                           "dataset": None, "strategy": None, "problem": None, "score": None, "accuracy": None,
                           "n": None, "split": None,
                           "created": None}  # fmt: skip
    try:
        record = run.record
    except RunError as error:
        warn(str(error))
        return row
    row.update(status=record.get("status"), kind=record.get("kind"), created=record.get("created"))
    row.update(
        backbone=_part(record, "backbone").get("name"),
        dataset=_part(record, "dataset").get("name"),
        strategy=_part(record, "recipe").get("strategy"),
    )
    if record.get("kind") == "stack":
        row["strategy"] = _part(record, "stack").get("choice")
    result = _part(record, "result")
    row.update(problem=result.get("problem", ONE), score=headline(result)[1])
    row.update(accuracy=result.get("accuracy"), n=result.get("n"), split=result.get("split"))
    return row


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _cells(row: dict[str, Any]) -> list[str]:
    images = count(row["n"])
    texts = [str(row[key] or "-") for key in ("name", "status", "backbone", "dataset", "strategy")]
    return [*texts, _score(row), images, _date(row["created"])]


def _score(row: dict[str, Any]) -> str:
    """Accuracy is what a score is, unless it says otherwise."""
    name = headline(row)[0]
    if row["score"] is None or name == "accuracy":
        return percent(row["score"])
    return f"{written(name, row['score'])} {name}"


def _date(created: str | None) -> str:
    """The local date and time of a record's time stamp."""
    try:
        return datetime.fromisoformat(str(created)).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "-"
