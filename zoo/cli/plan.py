"""`zoo plan`: what `zoo adapt` would do, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.cli import options, progress, render
from zoo.cli.options import Backbone, Dataset, RecipeSource
from zoo.cli.output import Answer, Json


@options.with_recipe
def command(
    model: Backbone = None,
    dataset: Dataset = None,
    recipe: RecipeSource = None,
    as_json: Json = False,
    *,
    choices: Mapping[str, Any],
) -> Answer:
    """Show the plan: which layer group trains in which phase, at which rate, and what it takes.

    For example:

        zoo plan resnet50 --dataset cifar10 --strategy gradual
    """
    base = options.settle(model, dataset, recipe, choices)
    with progress.shown("loading torch and timm", show_plan=False) as listen:
        from zoo import api

        assert base.backbone is not None, "settle refuses it"
        record = api.plan(base.backbone, dataset or base.dataset, base.recipe, on_event=listen).record()
    return Answer(record, lambda: render.plan(record), as_json)
