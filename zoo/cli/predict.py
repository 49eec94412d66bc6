"""`zoo predict`: label images."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zoo.cli import progress, render
from zoo.cli.eval import BatchSize
from zoo.cli.options import TrainedModel, argument
from zoo.cli.output import Answer, Json, WrongUsage, printable, warn


def command(
    model: TrainedModel,
    images: Annotated[list[str], argument("IMAGE...", "Images, folders of images, or - to read paths from stdin.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to give for each image.")] = 5,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> Answer:
    """Label images, with probabilities.

    If an image cannot be read, it is reported, the others are labelled, and the exit code is 1.

    For example:

        zoo predict runs/resnet50-photos cat.jpg holiday/
        find . -name '*.jpg' | zoo predict resnet50 - --json
    """
    paths = [path for image in images for path in (_from_stdin() if image == "-" else [image])]
    if not paths:
        raise WrongUsage("no images were named", why="stdin was empty", fix="write a path on each line")
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        found = api.predict(model, paths, top=top, batch_size=batch_size, on_event=listen)
    records = [prediction.record() for prediction in found]
    unread = [record for record in records if "error" in record]

    def show() -> None:
        read = [record for record in records if "error" not in record]
        if read:
            render.predictions(read)
        sys.stdout.flush()
        for record in unread:
            path, why = printable(record["path"]), printable(record["error"])
            warn(why if path in why else f"cannot read {path}: {why}")

    return Answer(records, show, as_json, exit_code=1 if unread else 0)


def _from_stdin() -> list[str]:
    """One path a line, as `find` and `ls` write them."""
    return [line for line in sys.stdin.read().splitlines() if line.strip()]
