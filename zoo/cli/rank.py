"""`zoo rank`: which backbone should transfer best, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.base.text import duration, interval, percent, plural, size
from zoo.cli import options, progress, render
from zoo.cli.compare import Backbones
from zoo.cli.options import BudgetText, Dataset, RecipeSource
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.render import Column


@partial(options.with_recipe, but=("weights",))
def command(
    models: Backbones = None,
    dataset: Dataset = None,
    images: Annotated[int, typer.Option("--images", min=10, help="Largest number of images to rank on.")] = 2000,
    budget: BudgetText = None,
    recipe: RecipeSource = None,
    as_json: Json = False,
    *,
    choices: Mapping[str, Any],
) -> Answer:
    """Order backbones by how well they should transfer, from their frozen features alone.

    The order is by the cross-validated accuracy of a linear probe on train and validation images. Without MODEL, all
    backbones whose weights are on this machine are ranked.

    For example:

        zoo rank --dataset photos/
        zoo rank resnet18 resnet50 timm/convnext_tiny --dataset photos/ --budget 10m
    """
    data, settled = options.settle_shared(dataset, recipe, choices, "zoo rank")
    with progress.shown("loading torch and timm", show_plan=False) as listen:
        from zoo import api

        limit = options.read_budget(budget)
        record = api.rank(data, models or (), settled, images=images, budget=limit, on_event=listen).record()
    return Answer(record, lambda: _show(record), as_json)


def _show(record: Mapping[str, Any]) -> None:
    say(f"{plural(record['images'], 'image')} of {printable(record['dataset'])}, "
        f"{plural(record['classes'], 'class', 'classes')}; the time is for {record['strategy']}\n")  # fmt: skip
    numbers = ("predicted", "interval", "best", "ranks", "LogME", "H-score", "kNN", "epochs", "time", "memory")
    columns = [
        Column("rank", right=True),
        Column("backbone", wrap=True),
        *(Column(name, right=True) for name in numbers),
    ]
    if record["budget"]:
        columns.append(Column("fits"))
    rows = []
    for row in record["ranking"]:
        (first, last), cost = row["ranks"], row["adapting"]
        name = row["backbone"] if row["weights"] == "default" else f"{row['backbone']}={Path(row['weights']).name}"
        cells = [str(row["rank"]), name, percent(row["accuracy"]), interval(row["interval"]),
                 percent(row["best"]), str(first) if first == last else f"{first} to {last}", f"{row['log_me']:.3f}",
                 f"{row['h_score']:.2f}", percent(row["knn"]), str(cost["epochs"]), duration(cost["seconds"]),
                 size(cost["memory_bytes"])]  # fmt: skip
        rows.append([*cells, "yes" if cost["fits"] else "no"] if record["budget"] else cells)
    render.table(columns, rows)
    say("\npredicted: accuracy of a linear probe on the frozen features; fine-tuning mostly reaches more")
    if record["left_out"]:
        say(f"left out: {plural(len(record['left_out']), 'backbone')}")
    by_reason: dict[str, list[str]] = {}
    for one in record["left_out"]:
        by_reason.setdefault(one["why"], []).append(one["backbone"])
    for why, names in by_reason.items():
        say(f"  {printable(why)}: {printable(', '.join(names))}")
