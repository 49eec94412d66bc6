"""Members of a comparison: backbones x strategies, each with its recipe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import PRESETS
from zoo.studies import backbone_list
from zoo.studies.backbone_list import Entrant


@dataclass(frozen=True, slots=True)
class Member:
    """One backbone with one strategy."""

    name: str  # unique, and valid as a folder's name
    entrant: Entrant
    recipe: Recipe  # its seed is each run's own

    def record(self) -> dict[str, Any]:
        """The member's record before it runs."""
        scratch = self.recipe.strategy == "scratch"
        return {
            "name": self.name,
            "backbone": self.entrant.backbone,
            "weights": "none" if scratch else self.entrant.weights,
            "strategy": self.recipe.strategy,
            "recipe": self.recipe.record(),
            "plan": None,
            "error": None,
            "runs": {},
        }


def members(backbones: Sequence[str], strategies: Sequence[str], recipe: Recipe) -> list[Member]:
    """Every backbone with every strategy.

    Raises RecipeError if there are fewer than two, or the choices contradict a strategy.
    """
    unknown = [name for name in strategies if name not in PRESETS]
    if unknown or len(set(strategies)) < len(strategies):
        what = f"there is no strategy {', '.join(unknown)}" if unknown else "a strategy is named twice"
        raise RecipeError(what, fix=f"the strategies are: {', '.join(PRESETS)}")
    if recipe.weights != "default":
        raise RecipeError("each backbone has weights of its own", fix="name them with it: MODEL=WEIGHTS")
    field = backbone_list.named(backbones)
    if len(strategies) > 1 and recipe.phases:
        raise RecipeError("phases in full replace a strategy, so several have no use", fix="leave out one of the two")
    found = label_members(field, strategies, recipe)
    if len(found) < 2:
        raise RecipeError(
            "there is nothing to compare", why=f"this is {len(found)} backbone(s) with one strategy",
            fix="name two backbones, or two strategies: zoo compare resnet18 vgg11_bn --dataset …",
        )  # fmt: skip
    return found


def label_members(field: Sequence[Entrant], strategies: Sequence[str], recipe: Recipe) -> list[Member]:
    """Every entrant with every strategy, under unique names; raises RecipeError for choices that contradict one."""
    # From random weights a backbone is the same, whatever weights it was named with.
    bare = list(dict.fromkeys(Entrant(entrant.backbone, "default") for entrant in field))
    labels = dict(zip(field, backbone_list.labels(field), strict=True))
    bare_labels = dict(zip(bare, backbone_list.labels(bare), strict=True))
    found: dict[tuple[Entrant, str], Member] = {}
    for entrant, strategy in itertools.product(field, strategies):
        scratch = strategy == "scratch"
        start = Entrant(entrant.backbone, "default") if scratch else entrant
        if (start, strategy) in found:
            continue
        name = f"{(bare_labels if scratch else labels)[start]}-{strategy}"
        chosen: Any = {"strategy": strategy, "weights": start.weights}
        try:
            found[start, strategy] = Member(name, entrant, replace(recipe, **chosen))
        except RecipeError as error:
            raise RecipeError(f"{name} cannot be compared: {error.what}", why=error.why, fix=error.fix) from None
    return [*found.values()]
