"""`zoo soup`: average the weights of several runs."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.base.text import percent
from zoo.cli import complete, progress, render
from zoo.cli.output import Answer, Json, say

RUNS = typer.Argument(
    metavar="RUN...",
    help="Finished runs: their folders, or names under runs/.",
    autocompletion=complete.finished_run,
    show_default=False,
)
Out = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", metavar="FOLDER", help="Folder of the new run; a new one under runs/ if left out.",
        show_default=False,
    ),
]  # fmt: skip


def command(runs: Annotated[list[str], RUNS], out: Out = None, as_json: Json = False) -> Answer:
    """Average the weights of several runs of one architecture, greedily: a soup, one network as quick as each.

    From the best run down, each is added if that makes the average no worse on the images that chose the runs' epochs.
    The runs must have the same images in the same roles; with several seeds that takes one --data-seed. What comes out
    is a run like any other.

    For example:

        zoo soup runs/photos-1 runs/photos-2 runs/photos-3
    """
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        run = api.soup(runs, out=out, on_event=listen)
    record = run.finished_record()

    def show() -> None:
        columns = [render.Column("run", wrap=True), render.Column("accuracy", right=True),
                   render.Column("average with it", right=True), render.Column("in the soup")]  # fmt: skip
        rows = [[row["name"], percent(row["accuracy"]), percent(row["with"]["accuracy"]) if row["with"] else "-",
                 "yes" if row["kept"] else "no"] for row in record["soup"]["candidates"]]  # fmt: skip
        render.table(columns, rows)
        say(f"(accuracy on the images that choose: {record['dataset']['selected_on']})\n")
        render.run_result(record, run)

    document = {"run": str(run.path), "result": render.small(record["result"]), "soup": record["soup"],
                "seconds": record["seconds"], "report": str(run.report)}  # fmt: skip
    return Answer(document, show, as_json)
