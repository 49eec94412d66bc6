"""`zoo reproduce`: do a run again, and report the differences."""

from __future__ import annotations

from typing import Annotated

from zoo.cli import complete, progress, render
from zoo.cli.options import Dataset, Out, argument, option
from zoo.cli.output import Answer, Json

_RUN = "A finished run (its folder, or its name under runs/), or a model that zoo published (ORG/NAME)."
_WEIGHTS = "Where the weights to start from are now, if they were a file."


def command(
    run: Annotated[str, argument("RUN", _RUN, complete.trained_model)],
    dataset: Dataset = None,
    weights: Annotated[str | None, option("--weights", metavar="FILE", help=_WEIGHTS)] = None,
    out: Out = None,
    as_json: Json = False,
) -> Answer:
    """Do a run again from its record, and compare weights, accuracy, data, versions and machine.

    On the CPU of the same machine, with the same versions, the weights are identical to the bit. A model on the Hub
    that was trained on local images needs --dataset.

    For example:

        zoo reproduce runs/resnet50-photos
        zoo reproduce me/resnet50-photos --dataset photos/
    """
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        done = api.reproduce(run, dataset=dataset, weights=weights, out=out, on_event=listen)
    record = done.record()
    return Answer(record, lambda: render.reproduction(record, done.run), as_json)
