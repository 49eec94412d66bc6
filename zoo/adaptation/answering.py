"""What a recipe comes to for what images answer: the loss, what chooses the epoch, and what does not go together."""

from __future__ import annotations

from zoo import data
from zoo.data import Dataset
from zoo.engine.objective import Objective
from zoo.errors import RecipeError
from zoo.objectives.multilabel import MultiLabel
from zoo.objectives.supervised import Supervised
from zoo.recipe import Recipe

FEW_CHOOSING = 1000  # choosing images below which an accuracy is too coarse to tell epochs apart
SMOOTHING = 0.1  # of classes that exclude each other, where nobody chose
_ONE_CLASS = {"mixup": 0.0, "cutmix": 0.0, "balance": "none"}  # choices that need one class of each image, when off


def refuse_unfit(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse choices that mean nothing for what the images answer.

    Raises:
        RecipeError: All of them are listed.
    """
    if dataset.tasks:
        wrong = [name for name, off in _ONE_CLASS.items() if getattr(recipe, name) != off]
        if recipe.select_by == "accuracy":
            wrong.append("select_by accuracy")
        why = "they need one class of each image, and here images have several labels"
    else:
        wrong = [*(["select_by map"] if recipe.select_by == "map" else []),
                 *(["label_loss asymmetric"] if recipe.label_loss == "asymmetric" else [])]  # fmt: skip
        why = "they are about several labels of an image, and here each has one class"
    if wrong:
        raise RecipeError(
            f"these choices do not go with {dataset.name}: {', '.join(wrong)}", why=why, fix="leave them out"
        )


def selected_by(recipe: Recipe, dataset: Dataset) -> str:
    """What makes an epoch the best one."""
    if recipe.select_by != "auto":
        return recipe.select_by
    if dataset.tasks:
        return "map"
    return "refinement" if len(dataset.choose) < FEW_CHOOSING else "accuracy"


def smoothing(recipe: Recipe, dataset: Dataset) -> float:
    """How much of a target is spread."""
    if recipe.label_smoothing is not None:
        return recipe.label_smoothing
    return 0.0 if dataset.tasks else SMOOTHING


def objective(settled: Recipe, dataset: Dataset) -> Objective:
    """What training minimises."""
    if dataset.tasks:
        return MultiLabel(settled.label_loss, smoothing=settled.label_smoothing or 0.0)
    return Supervised(
        len(dataset.classes),
        label_smoothing=settled.label_smoothing or 0.0,
        class_weights=data.class_weights(dataset.fit) if settled.balance == "weights" else None,
        mixup=settled.mixup,
        cutmix=settled.cutmix,
    )
