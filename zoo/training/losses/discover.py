"""The terms that a recipe names, from the files that hold them."""

from __future__ import annotations

from importlib import import_module

from zoo.recipes import methods
from zoo.recipes.recipe import Recipe
from zoo.training.losses.combined import Term


def chosen(recipe: Recipe) -> list[tuple[type[Term], float]]:
    """The methods of a recipe, alignment first, each with the weight that the recipe gives it."""
    found = []
    if recipe.align in methods.ALIGNMENT:
        found.append((_load("alignment", recipe.align), recipe.align_weight))
    if recipe.semi in methods.SEMI:
        found.append((_load("semi", recipe.semi), recipe.semi_weight))
    return found


def views(recipe: Recipe) -> int:
    """Views of each image without a label that the methods of a recipe want; 0: none."""
    return max((method.views for method, _ in chosen(recipe)), default=0)


def _load(folder: str, name: str) -> type[Term]:
    method: type[Term] = import_module(f"zoo.training.losses.{folder}.{name}").METHOD
    return method
