"""`zoo adapt`: train, measure and report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import complete, options, processes, progress, render
from zoo.cli.options import Backbone, Dataset, RecipeSource
from zoo.cli.output import Answer, Json, WrongUsage
from zoo.events import ResultReady
from zoo.recipes import methods
from zoo.runs.run_folder import Run, find


@options.with_recipe
def command(
    model: Backbone = None,
    dataset: Dataset = None,
    recipe: RecipeSource = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Folder of the run; a new one under runs/ if left out.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an interrupted run, with its own choices; only --workers, --checkpoint-every and "
            "--checkpoint-keep may change.",
            autocompletion=complete.unfinished_run,
            show_default=False,
        ),
    ] = None,
    budget: options.BudgetText = None,
    among: Annotated[
        list[str] | None,
        typer.Option(
            "--among",
            metavar="MODEL",
            help="With the model auto: a backbone to choose from, or MODEL=WEIGHTS. Repeat it for more. If left out: "
            "all whose weights are on this machine.",
            autocompletion=complete.backbone,
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            min=1,
            max=1024,
            help="Processes on this machine that share each batch; default: 1, or as many as a run had that goes on or "
            "is repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    *,
    choices: Mapping[str, Any],
) -> Answer:
    """Adapt a backbone to your images: plan, train, measure, report.

    The images that choose the best epoch are never those that the result is measured on. The model auto stands for the
    backbone that ranks best (see zoo rank) among those that fit into the budget.

    For example:

        zoo adapt resnet50 --dataset photos/
        zoo adapt resnet_nano --dataset digits --strategy probe --epochs 5
        zoo adapt auto --dataset photos/ --budget 10m
        zoo adapt resnet50 --dataset photos/ --processes 2
        zoo adapt resnet50 --task kind=pets.csv:kind --task age=pets.csv:age
        zoo adapt --resume runs/resnet50-photos
    """
    if resume is not None:
        named = {"--out": out, "--budget": budget, "--among": among or None}
        typed = [name for name, value in named.items() if value is not None]
        if typed:
            raise WrongUsage(
                f"a resumed run stays in its folder, with the epochs and the backbone that it has: {', '.join(typed)}",
                fix=f"to go on with it: zoo adapt --resume {resume}",
            )
        work: dict[str, Any] = {"resume": resume, "backbone": model, "dataset": dataset}
        if (recipe is not None or choices) and find(resume):
            work["recipe"] = options.on_top_of(recipe or resume, choices)
    else:
        backbone, data, settled = options.settle(model, dataset, recipe, choices)
        work = {"backbone": backbone, "dataset": data, "recipe": settled, "out": out}
        if budget is not None:
            work["budget"] = options.read_budget(budget)
        if among:
            work["among"] = among
    started = processes.wanted(count, resume, recipe)
    if started > 1:
        processes.launch(sys.argv[1:], started)
        raise typer.Exit  # the first of them has printed the result
    told = []

    def tell(event: ResultReady) -> None:
        render.run_measured(event.record, Run(Path(event.path)))
        told.append(event)

    # Of several methods tried, the last one's result need not be that of the run.
    late = as_json or ("recipe" in work and len(methods.asked(work["recipe"].align)) > 1)
    with progress.shown("loading torch and timm", result=None if late else tell) as listen:
        from zoo import api

        run = api.adapt(**work, on_event=listen)
    record = run.finished_record()
    report = str(run.report) if run.report.is_file() else None
    document = {
        "run": str(run.path),
        "result": render.small(record["result"]),
        "seconds": record["seconds"],
        "best": record.get("best"),
        "report": report,
    }
    document |= {key: record[key] for key in ("chosen", "soup", "wise") if record.get(key)}
    if target := record.get("target"):
        document["target"] = {name: target.get(name) for name in ("name", "validators", "chosen", "oracle")}
        document["target"]["result"] = render.small(target.get("result") or {}) or None

    return Answer(document, lambda: render.run_places(run) if told else render.run_result(record, run), as_json)
