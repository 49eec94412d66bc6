"""What a recipe comes to for what images answer: the loss, what chooses the epoch, and what does not go together."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn

from zoo import data, methods
from zoo.adaptation import beside
from zoo.adaptation.beside import Besides
from zoo.data import Dataset, EvaluationLoader, Part
from zoo.engine import scoring
from zoo.engine.evaluation import collect
from zoo.engine.objective import Objective
from zoo.errors import RecipeError
from zoo.models import DataConfig
from zoo.objectives.multilabel import MultiLabel
from zoo.objectives.supervised import Supervised
from zoo.recipe import Problem, Recipe
from zoo.tasks import Task

FEW_CHOOSING = 1000  # choosing images below which an accuracy is too coarse to tell epochs apart
# Choices that need one class of each image, when they are off.
_ONE_CLASS = {"mixup": 0.0, "cutmix": 0.0, "balance": "none", "align": "none", "semi": "none", "target": None,
              "unlabelled": None, "soup": False, "wise": None}  # fmt: skip


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


def problem(dataset: Dataset) -> Problem:
    """What an image has, one class or several labels."""
    return "multi-label" if dataset.tasks else "single-label"


def selected_by(recipe: Recipe, dataset: Dataset) -> str:
    """What makes an epoch the best one."""
    if recipe.select_by != "auto":
        return recipe.select_by
    if dataset.tasks:
        return "map"
    if recipe.align in methods.ALIGNMENT:
        return "information"
    return "refinement" if len(dataset.choose) < FEW_CHOOSING else "accuracy"


def smoothing(recipe: Recipe, dataset: Dataset) -> float:
    """How much of a target is spread, where labels do not exclude each other: nothing, unless somebody asked for it."""
    return recipe.label_smoothing or 0.0 if dataset.tasks else recipe.smoothing


def objective(
    settled: Recipe,
    part: Part,
    besides: Besides | None,
    model: nn.Module,
    config: DataConfig,
    accelerator: Accelerator,
) -> Objective:
    """What is minimised on the images of a part, and on those without labels beside them."""
    if part.tasks:
        return MultiLabel(settled.label_loss, smoothing=settled.smoothing)
    supervised = Supervised(
        len(part.classes),
        label_smoothing=settled.smoothing,
        class_weights=data.class_weights(part) if settled.balance == "weights" else None,
        mixup=settled.mixup,
        cutmix=settled.cutmix,
    )
    return beside.objective(settled, supervised, besides, model, config, accelerator.device)


def with_thresholds(
    dataset: Dataset, choosing: EvaluationLoader, model: nn.Module, accelerator: Accelerator
) -> tuple[Task, ...]:
    """The tasks, with what is chosen on the choosing images when training is over."""
    if not dataset.tasks:
        return ()
    return scoring.with_thresholds(dataset.tasks, collect(model, choosing, accelerator, mixed=False))
