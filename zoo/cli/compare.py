"""`zoo compare`: several backbones, adapted in the same way, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from zoo.base.text import compact, duration, interval, percent, plural, size
from zoo.cli import complete, options, progress, render
from zoo.cli.options import BudgetText, Dataset, Out, RecipeSource, argument, option
from zoo.cli.output import Answer, Json, WrongUsage, printable, say
from zoo.cli.render import Column

_BACKBONES = "Backbones from `zoo list`, or timm/ARCHITECTURE; with weights of its own as MODEL=WEIGHTS."
Backbones = Annotated[list[str] | None, argument("MODEL...", _BACKBONES, complete.backbone)]
_STRATEGIES = "Strategies that each backbone is adapted with. (default: lp-ft, or the recipe's)"
_SEEDS = "Runs of each, with seeds from --seed on. (default: 3)"
_RESUME = "Go on with a comparison: what is finished stays, what failed is tried again."


@partial(options.with_recipe, but=("strategy", "weights"))
def command(
    models: Backbones = None,
    dataset: Dataset = None,
    strategies: Annotated[str | None, option("--strategies", metavar="NAME,NAME", help=_STRATEGIES)] = None,
    seeds: Annotated[int | None, option("--seeds", min=1, help=_SEEDS)] = None,
    budget: BudgetText = None,
    recipe: RecipeSource = None,
    out: Out = None,
    resume: Annotated[str | None, option("--resume", metavar="FOLDER", help=_RESUME)] = None,
    as_json: Json = False,
    *,
    choices: Mapping[str, Any],
) -> Answer:
    """Compare backbones: adapt each in the same way, over several seeds, and say which differences are more than noise.

    Each run is a process of its own and an ordinary run folder. The table is also in comparison.csv, and
    comparison.html has the plots of accuracy against cost.

    For example:

        zoo compare resnet18 vgg11_bn alexnet googlenet --dataset photos/ --budget 10m
        zoo compare resnet18 resnet18=runs/earlier --dataset photos/ --strategies probe,lp-ft
        zoo compare --resume runs/compare-photos
    """
    if resume is not None:
        given = {"MODEL": models, "--dataset": dataset, "--strategies": strategies, "--seeds": seeds,
                 "--budget": budget, "--recipe": recipe, "--out": out}  # fmt: skip
        options.refuse_with_resume("compare", resume, {**given, **{options.flag(name): True for name in choices}})
        work: dict[str, Any] = {"resume": resume}
    else:
        data, settled = options.settle_shared(dataset, recipe, choices, "zoo compare MODEL MODEL")
        if not models:
            raise WrongUsage("which backbones? none was named", fix="name some: zoo compare MODEL MODEL --dataset …")
        chosen = tuple(name.strip() for name in strategies.split(",")) if strategies else ()
        work = {"backbones": models, "dataset": data, "recipe": settled, "strategies": chosen, "seeds": seeds,
                "budget": options.read_budget(budget), "out": out}  # fmt: skip
    with progress.shown("loading torch and timm", show_plan=False) as listen:
        from zoo import api

        comparison = api.compare(**work, on_event=listen)
    summary = comparison.summary
    places = {"comparison": comparison.path, "page": comparison.page, "table": comparison.table}
    document = {**{name: str(path) for name, path in places.items()}, **summary}

    def show() -> None:
        _show(summary)
        say(f"comparison  {render.shell_path(comparison.path)}")
        say(f"page        {render.shell_path(comparison.page)}")

    return Answer(document, show, as_json, exit_code=1 if summary["failed"] else 0)


def _show(summary: Mapping[str, Any]) -> None:
    numbers = ("accuracy", "interval", "seeds", "parameters", "FLOPs", "epochs", "training", "memory", "images/s")
    columns = [Column("member", wrap=True), Column("weights", wrap=True),
               *(Column(name, right=True) for name in numbers), Column("front")]  # fmt: skip
    rows = []
    for row in summary["rows"]:
        fronts = ", ".join(_FRONTS[cost] for cost in row["pareto"])
        rows.append([row["member"], printable(row["starts_from"]), percent(row["accuracy"]),
                     interval(row["interval"]), str(len(row["accuracies"])), compact(row["params"]),
                     compact(row["flops"]), str(row["epochs"]), duration(row["train_seconds"]),
                     size(row["memory_bytes"] or None),
                     f"{row['images_per_second']:.0f}", fronts or "-"])  # fmt: skip
    render.table(columns, rows)
    say()
    differences = summary["differences"]
    noise = [pair for pair in differences if pair["within_noise"]]
    if differences:
        say(f"{len(noise)} of {plural(len(differences), 'difference')} within noise "
            f"({'; '.join(dict.fromkeys(pair['test'] for pair in differences))}; p adjusted for all, "
            "intervals for none):")  # fmt: skip
    for pair in differences:
        say(render.difference(pair))
    for note in summary["notes"]:
        say(f"note: {printable(note)}")
    for fault in summary["failed"]:
        why = f" ({printable(fault['why'])})" if fault["why"] else ""
        say(f"failed: {fault['member']}: {printable(fault['what'])}{why}")


# The costs by which a member is on the Pareto front, as the table names them.
_FRONTS = {"train_seconds": "training", "flops": "FLOPs", "params": "parameters", "memory_bytes": "memory"}
