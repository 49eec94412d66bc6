"""`zoo reproduce`: do a run again, and say what came out otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli import complete, progress, render
from zoo.cli.options import Dataset
from zoo.cli.output import Answer, Json


def command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A finished run (its folder, or its name under runs/), or a model that zoo published (ORG/NAME).",
            autocompletion=complete.trained_model,
            show_default=False,
        ),
    ],
    dataset: Dataset = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="Where the weights to start from are now, if they were a file."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the new run; one under runs/ if left out."),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Do a run again from its record: are the weights the same, is the accuracy, and what differs around them?

    On the CPU of the same machine, with the same versions, the weights are identical to the bit. A model on the Hub
    whose images were on somebody's disk needs --dataset.

    For example:

        zoo reproduce runs/resnet50-photos
        zoo reproduce me/resnet50-photos --dataset photos/
    """
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        done = api.reproduce(run, dataset=dataset, weights=weights, out=out, on_event=listen)
    record = done.record()
    return Answer(record, lambda: render.reproduction(record, done.run), as_json)
