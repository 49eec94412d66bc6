"""`zoo adapt`: train, measure and report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import complete, options, processes, progress, render
from zoo.cli.options import Backbone, Dataset, Out, RecipeSource, option
from zoo.cli.output import Answer, Json, WrongUsage
from zoo.events import ResultReady
from zoo.recipes import methods
from zoo.runs.run_folder import Run, find

_RESUME = (
    "Go on with an interrupted run, with its own choices; only --workers, --checkpoint-every and --checkpoint-keep may "
    "change."
)
_AMONG = (
    "With the model auto: a backbone to choose from, or MODEL=WEIGHTS. Repeat it for more. If left out: all whose "
    "weights are on this machine."
)
_PROCESSES = "Processes on this machine that share each batch; default: 1, or that of the run in --resume or --recipe."


@options.with_recipe
def command(
    model: Backbone = None,
    dataset: Dataset = None,
    recipe: RecipeSource = None,
    out: Out = None,
    resume: Annotated[
        str | None, option("--resume", metavar="RUN", help=_RESUME, autocompletion=complete.unfinished_run)
    ] = None,
    budget: options.BudgetText = None,
    among: Annotated[
        list[str] | None, option("--among", metavar="MODEL", help=_AMONG, autocompletion=complete.backbone)
    ] = None,
    count: Annotated[int | None, option("--processes", metavar="N", min=1, max=1024, help=_PROCESSES)] = None,
    as_json: Json = False,
    *,
    choices: Mapping[str, Any],
) -> Answer:
    """Adapt a backbone to your images: plan, train, measure, report.

    The result is never measured on the images that choose the best epoch. The model auto stands for the backbone that
    ranks best (see zoo rank) among those that fit into the budget.

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
        if typed := [name for name, value in named.items() if value is not None]:
            raise WrongUsage(
                f"a resumed run stays in its folder, with the epochs and the backbone that it has: {', '.join(typed)}",
                fix=f"to go on with it: zoo adapt --resume {resume}",
            )
        work: dict[str, Any] = {"resume": resume, "backbone": model, "dataset": dataset}
        if (recipe is not None or choices) and find(resume):
            work["recipe"] = options.on_top_of(recipe or resume, choices)
    else:
        base = options.settle(model, dataset, recipe, choices)
        work = {"backbone": base.backbone, "dataset": dataset or base.dataset, "recipe": base.recipe, "out": out}
        work |= {"budget": options.read_budget(budget)} if budget is not None else {}
        work |= {"among": among} if among else {}
    started = processes.number_to_start(count, resume, recipe)
    if started > 1:
        processes.launch(sys.argv[1:], started)
        raise typer.Exit  # the first of them has printed the result
    shown = []

    def show_result(event: ResultReady) -> None:
        render.run_measured(event.record, Run(Path(event.path)))
        shown.append(event)

    # If several methods are tried, the last one's result need not be that of the run.
    late = as_json or ("recipe" in work and len(methods.asked(work["recipe"].align)) > 1)
    with progress.shown("loading torch and timm", result=None if late else show_result) as listen:
        from zoo import api

        run = api.adapt(**work, on_event=listen)
    record = run.finished_record()
    document = {
        "run": str(run.path),
        "result": render.small(record["result"]),
        "seconds": record["seconds"],
        "best": record.get("best"),
        "report": str(run.report) if run.report.is_file() else None,
    }
    document |= {key: record[key] for key in ("chosen", "soup", "wise") if record.get(key)}
    if target := record.get("target"):
        document["target"] = {name: target.get(name) for name in ("name", "validators", "chosen", "oracle")}
        document["target"]["result"] = render.small(target.get("result") or {}) or None
    return Answer(document, lambda: render.run_places(run) if shown else render.run_result(record, run), as_json)
