"""`zoo stack`: combine what several runs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from zoo.base.text import interval, p_value, percent, plural
from zoo.cli import complete, progress, render
from zoo.cli.output import Answer, Json, WrongUsage, printable, say
from zoo.cli.render import Column
from zoo.cli.soup import RUNS, Out


def command(
    runs: Annotated[list[str] | None, RUNS] = None,
    choice: Annotated[
        Literal["auto", "mean", "weighted", "gated", "logistic"],
        typer.Option(
            "--choice",
            help="How to combine: mean; weighted, a weight for each; gated, weights that depend on the image; "
            "logistic, a regression on log-probabilities; auto, the simplest that none is measurably better than.",
        ),
    ] = "auto",
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            metavar="K",
            min=2,
            max=100,
            help="Adapt each member K times anew, without a part of the training images each, to fit on what those say "
            "about the parts that they did not see.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the folds of cross-validation.")] = 0,
    out: Out = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="FOLDER",
            help="Go on with a stack whose folds were interrupted.",
            autocompletion=complete.unfinished_run,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Learn to combine what several runs say: a model over models, calibrated, measured beside each of them.

    It is fitted on images that no member was trained on, at least 10 of each class, and reported on others. The members
    may be of any architectures and image sizes; they must have the same classes. What comes out is a run with the
    members inside.

    For example:

        zoo stack runs/resnet18-photos runs/vgg11_bn-photos runs/googlenet-photos
        zoo stack runs/resnet18-photos runs/vgg11_bn-photos --choice weighted --folds 5
        zoo stack --resume runs/stack-photos
    """
    if resume is not None:
        given = {"RUN": runs, "--folds": folds, "--out": out, "--choice": choice != "auto", "--seed": seed}
        typed = [name for name, value in given.items() if value]
        if typed:
            raise WrongUsage(
                f"--resume goes on with the stack's own choices and takes no others, but got {', '.join(typed)}",
                fix=f"to go on: zoo stack --resume {resume}",
            )
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

    document = {"run": str(run.path), "result": render.small(record["result"]), "stack": record["stack"],
                "seconds": record["seconds"], "report": str(run.report)}  # fmt: skip
    return Answer(document, show, as_json)


def _show(stack: Mapping[str, Any]) -> None:
    """The table, the differences, and how much each member counts."""
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
        low, high = (100 * bound for bound in pair["interval"])
        verdict = "within noise" if pair["within_noise"] else "more than noise"
        say(f"  {printable(pair['first'])} over {printable(pair['second'])}: {100 * pair['difference']:+.1f} points "
            f"({low:+.1f} to {high:+.1f}), p {p_value(pair['p_adjusted'])}, {verdict}")  # fmt: skip
    say()
    kind = "coefficient" if stack["choice"] == "logistic" else "weight"
    for member, weight in zip(stack["members"], stack["weights"], strict=True):
        say(f"{kind:<10}{weight:.2f}  {printable(member['name'])}")
    say(f"fitted    {stack['choice']}, on {plural(stack['n'], 'image')} ({printable(stack['fit_on'])})")
