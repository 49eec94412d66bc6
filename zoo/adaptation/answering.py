"""What a recipe comes to for what images answer: the loss, what chooses the epoch, and what does not go together."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from torch import nn

from zoo import data, methods, tasks
from zoo.adaptation import beside
from zoo.adaptation.beside import Besides
from zoo.data import Dataset, EvaluationLoader, Part
from zoo.engine import scoring
from zoo.engine.choosing import select_by_for
from zoo.engine.evaluation import collect
from zoo.engine.objective import Objective
from zoo.errors import RecipeError
from zoo.groups import Group
from zoo.models import DataConfig
from zoo.objectives.multilabel import MultiLabel
from zoo.objectives.multitask import MultiTask
from zoo.objectives.supervised import Supervised
from zoo.recipe import ONE_CLASS, Problem, Recipe
from zoo.tasks import Task

_BY_CLASS = ("accuracy", "loss", "refinement", "entropy", "information", "density")
_MERITS = {"one class": _BY_CLASS, "labels": ("map", "loss", "refinement"), "tasks": ("score", "loss")}


def _kind(asked: Sequence[Task]) -> str:
    """One class, several labels, or anything else."""
    return "one class" if not asked else "labels" if tasks.problem(asked) == "multi-label" else "tasks"


def refuse_unfit(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse choices that mean nothing for what the images answer.

    Raises:
        RecipeError: All of them are listed.
    """
    wrong: list[str] = []
    why = "they are not what such images are measured by"
    if dataset.tasks:
        wrong = [name for name, off in ONE_CLASS.items() if getattr(recipe, name) != off]
    elif recipe.label_loss != "bce":
        wrong = [f"label_loss {recipe.label_loss}"]
    if wrong:
        why = "they need one class of each image, and here images have several labels, or answer several questions"
        if not dataset.tasks:
            why = "it is about several labels of an image, and here each has one class"
    if recipe.select_by not in ("auto", *_MERITS[_kind(dataset.tasks)]):
        wrong.append(f"select_by {recipe.select_by}")
    if wrong:
        raise RecipeError(
            f"these choices do not go with {dataset.name}: {', '.join(wrong)}", why=why, fix="leave them out"
        )


def problem(recipe: Recipe, dataset: Dataset) -> Problem:
    """What an image has, one class or several labels; of tasks each has a kind of its own."""
    if recipe.tasks:
        return "auto"
    return "multi-label" if dataset.tasks else "single-label"


def selected_by(recipe: Recipe, dataset: Dataset) -> str:
    """What makes an epoch the best one."""
    if recipe.select_by != "auto":
        return recipe.select_by
    if dataset.tasks:
        return "map" if _kind(dataset.tasks) == "labels" else "score"
    if recipe.align in methods.ALIGNMENT:
        return "information"
    return select_by_for(len(dataset.choose))


def compiled(recipe: Recipe) -> str:
    """Which phases may be compiled: a compiled network cannot be gone back through several times, as PCGrad does."""
    return "off" if recipe.task_weighting == "pcgrad" else recipe.compile


def smoothing(recipe: Recipe, dataset: Dataset) -> float:
    """How much of a target is spread; where labels do not exclude each other nothing, unless somebody asked for it."""
    if _kind(dataset.tasks) == "labels":
        return recipe.label_smoothing or 0.0
    return recipe.smoothing


def objective(
    settled: Recipe,
    part: Part,
    besides: Besides | None,
    model: nn.Module,
    head: Group,
    config: DataConfig,
    accelerator: Accelerator,
) -> Objective:
    """What is minimised on the images of a part, and on those without labels beside them."""
    if _kind(part.tasks) == "labels":
        return MultiLabel(settled.label_loss, smoothing=settled.smoothing)
    if part.tasks:
        return MultiTask(
            part.tasks,
            weighting=settled.task_weighting,
            weights=settled.task_weights,
            loss=settled.label_loss,
            smoothing=settled.smoothing,
            head=head.parameters,
        ).to(accelerator.device)
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
    if not any(task.kind == "multi-label" for task in dataset.tasks):
        return dataset.tasks
    return scoring.with_thresholds(dataset.tasks, collect(model, choosing, accelerator, mixed=False))
