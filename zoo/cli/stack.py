"""`zoo stack`: combine what several runs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from zoo.base.text import interval, percent, plural
from zoo.cli import complete, options, progress, render
from zoo.cli.options import Out, option
from zoo.cli.output import Answer, Json, WrongUsage, printable, say
from zoo.cli.render import Column
from zoo.cli.soup import RUNS

_CHOICE = (
    "How to combine: mean; weighted, a weight for each; gated, weights that depend on the image; logistic, a "
    "regression on log-probabilities; auto, the simplest one that no other is measurably better than."
)
_FOLDS = (
    "Adapt each member K times from scratch, each time without a part of the training images, and fit on the "
    "predictions for those parts."
)
_RESUME = "Go on with a stack whose folds were interrupted."


def command(
    runs: Annotated[list[str] | None, RUNS] = None,
    choice: Annotated[
        Literal["auto", "mean", "weighted", "gated", "logistic"],
        typer.Option("--choice", help=_CHOICE),
    ] = "auto",
    folds: Annotated[int | None, option("--folds", metavar="K", min=2, max=100, help=_FOLDS)] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the folds of cross-validation.")] = 0,
    out: Out = None,
    resume: Annotated[
        str | None, option("--resume", metavar="FOLDER", help=_RESUME, autocompletion=complete.unfinished_run)
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Learn to combine the predictions of several runs: a model over models, calibrated and compared with each of them.

    It is fitted on images that no member was trained on, at least 10 of each class, and reported on others. The members
    may have any architecture and image size, but must have the same classes. The result is a run that contains them.

    For example:

        zoo stack runs/resnet18-photos runs/vgg11_bn-photos runs/googlenet-photos
        zoo stack runs/resnet18-photos runs/vgg11_bn-photos --choice weighted --folds 5
        zoo stack --resume runs/stack-photos
    """
    if resume is not None:
        given = {"RUN": runs, "--folds": folds, "--out": out, "--choice": choice != "auto", "--seed": seed}
        options.refuse_with_resume("stack", resume, given)
        work: dict[str, Any] = {"resume": resume}
    else:
        if not runs:
            raise WrongUsage("which runs? none was named", fix="name some: zoo stack RUN RUN; see `zoo runs`")
        work = {"runs": runs, "choice": choice, "folds": folds, "seed": seed, "out": out}
    with progress.shown("loading torch and timm", show_plan=False) as listen:
        from zoo import api

        run = api.stack(**work, on_event=listen)
    record = run.finished_record()

    def show() -> None:
        _show(record["stack"])
        render.run_result(record, run)

    return Answer(render.ensemble_document(record, run, "stack"), show, as_json)


def _show(stack: Mapping[str, Any]) -> None:
    columns = [Column("", wrap=True), Column("what"), Column("accuracy", right=True), Column("interval", right=True),
               Column("loss", right=True), Column("calibration error", right=True)]  # fmt: skip
    names = {"member": "member", "mean": "mean of probabilities", "way": "fitted", "soup": "one network"}
    rows = []
    for row in stack["rows"]:
        what = names[row["kind"]] + (", chosen" if row["chosen"] else "")
        what += ", best member" if row["name"] == stack["best_single"] else ""
        rows.append([row["name"], what, percent(row["accuracy"]), interval(row["interval"]),
                     f"{row['loss']:.4f}", f"{row['ece']:.4f}"])  # fmt: skip
    render.table(columns, rows)
    say()
    noise = sum(pair["within_noise"] for pair in stack["differences"])
    say(f"{noise} of {len(stack['differences'])} differences within noise (exact McNemar test; p adjusted for all, "
        "intervals for none):")  # fmt: skip
    for pair in stack["differences"]:
        say(render.difference(pair))
    say()
    kind = "coefficient" if stack["choice"] == "logistic" else "weight"
    for member, weight in zip(stack["members"], stack["weights"], strict=True):
        say(f"{kind:<10}{weight:.2f}  {printable(member['name'])}")
    say(f"fitted    {stack['choice']}, on {plural(stack['n'], 'image')} ({printable(stack['fit_on'])})")
