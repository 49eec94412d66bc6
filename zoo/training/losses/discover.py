"""Discovery of the loss terms that a recipe names."""

from __future__ import annotations

from importlib import import_module

from zoo.recipes import methods
from zoo.recipes.recipe import Recipe
from zoo.training.losses.combined import Term


def chosen(recipe: Recipe) -> list[tuple[type[Term], float]]:
    """The methods of a recipe, alignment first, each with its weight in the recipe."""
    folders = (("alignment", methods.ALIGNMENT, recipe.align, recipe.align_weight),
               ("semi", methods.SEMI, recipe.semi, recipe.semi_weight))  # fmt: skip
    return [(import_module(f"zoo.training.losses.{folder}.{name}").METHOD, weight)
            for folder, names, name, weight in folders if name in names]  # fmt: skip


def views(recipe: Recipe) -> int:
    """Views of each unlabelled image that the recipe's methods need; 0: none."""
    return max((method.views for method, _ in chosen(recipe)), default=0)
