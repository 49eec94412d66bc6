"""`zoo eval`: measure a model."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from zoo.cli import options, progress, render
from zoo.cli.options import Dataset, TrainedModel, option
from zoo.cli.output import Answer, Json

BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch.")]
_SPLIT = "Which images: train, val or test. If left out: test if there is one, else val, else all."


def command(
    model: TrainedModel,
    dataset: Dataset = None,
    split: Annotated[str | None, option("--split", metavar="NAME", help=_SPLIT)] = None,
    batch_size: BatchSize = 32,
    path_column: Annotated[str | None, options.field_option("path_column")] = None,
    label_column: Annotated[str | None, options.field_option("label_column")] = None,
    label_separator: Annotated[str | None, options.field_option("label_separator")] = None,
    dataset_config: Annotated[str | None, options.field_option("dataset_config")] = None,
    on_bad_image: Annotated[Literal["error", "skip"], options.field_option("on_bad_image")] = "error",
    as_json: Json = False,
) -> Answer:
    """Measure a model: accuracy, top-5, loss, macro F1, calibration, and every class.

    For a model that gives several labels: their mean average precision, F1, and every label with its threshold.

    Without --dataset a run is measured on the images of its report.

    For example:

        zoo eval runs/resnet50-photos
        zoo eval runs/resnet50-photos --dataset more-photos/ --json
    """
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        reading = {"path_column": path_column, "label_column": label_column, "label_separator": label_separator,
                   "dataset_config": dataset_config}  # fmt: skip
        found = api.evaluate(
            model, dataset, split=split, batch_size=batch_size, on_bad_image=on_bad_image, **reading, on_event=listen
        )
    return Answer(found, lambda: render.evaluation(found), as_json)
