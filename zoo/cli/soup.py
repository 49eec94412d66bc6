"""`zoo soup`: average the weights of several runs."""

from __future__ import annotations

from typing import Annotated

from zoo.base.text import percent
from zoo.cli import complete, progress, render
from zoo.cli.options import Out, argument
from zoo.cli.output import Answer, Json, say

RUNS = argument("RUN...", "Finished runs: their folders, or names under runs/.", complete.finished_run)


def command(runs: Annotated[list[str], RUNS], out: Out = None, as_json: Json = False) -> Answer:
    """Average the weights of several runs of one architecture, greedily: a soup, one network as fast as each.

    From the best run down, each is added if that makes the average no worse on the validation images. The runs must
    have the same train, val and test images; with several seeds that takes one --data-seed. The result is an ordinary
    run.

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
        say(f"(accuracy on the validation images: {record['dataset']['selected_on']})\n")
        render.run_result(record, run)

    return Answer(render.ensemble_document(record, run, "soup"), show, as_json)
