"""The objective and selection score of a recipe for given tasks, and checks that both fit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import nn

from zoo import data
from zoo.data import Dataset, EvaluationLoader
from zoo.data.targets import draw_weights
from zoo.errors import RecipeError
from zoo.models import saved
from zoo.models.features import width
from zoo.recipes import methods
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import ONE_CLASS
from zoo.tasks import scoring
from zoo.tasks.kind import LossOptions
from zoo.tasks.schema import MANY, ONE, Problem, Task, is_plain, merits
from zoo.training.collect import collect
from zoo.training.loaded import Loaded
from zoo.training.losses import discover
from zoo.training.losses.combined import Combined, TermSizes
from zoo.training.losses.objective import Objective
from zoo.training.losses.supervised import Supervised
from zoo.training.losses.task_losses import Tasks, known_shares, passes
from zoo.training.norms.reestimate import tracking_norms
from zoo.training.seeds import seed_all
from zoo.training.selection import select_by_for
from zoo.training.unlabelled_stream import UnlabelledStream, ratio

_USUAL_LOSS = Recipe().label_loss


def refuse_unfit(recipe: Recipe, dataset: Dataset) -> None:
    """Raises RecipeError, which lists every choice of the recipe that means nothing for the data set's tasks."""
    plain, wrong = is_plain(dataset.tasks), []
    why = "they are not what such images are measured by"
    if not plain:
        wrong = [name for name, off in ONE_CLASS.items() if getattr(recipe, name) != off]
        if wrong:
            why = "they need one class per image, and here images have several labels, or several tasks"
    elif recipe.label_loss not in (_USUAL_LOSS, *dataset.tasks[0].facts.losses):
        wrong = [f"label_loss {recipe.label_loss}"]
        why = "it is about several labels of an image, and here each has one class"
    if recipe.select_by not in ("auto", *merits(dataset.tasks), *(methods.VALIDATORS if plain else ())):
        wrong.append(f"select_by {recipe.select_by}")
    reasons = [why] if wrong else []
    for names, reason in _idle(recipe, dataset):
        wrong += names
        reasons.append(reason)
    if wrong:
        raise RecipeError(
            f"these choices do not go with {dataset.name}: {', '.join(wrong)}",
            why="; ".join(reasons),
            fix="leave them out",
        )


def _idle(recipe: Recipe, dataset: Dataset) -> Iterator[tuple[list[str], str]]:
    """Yields choices about tasks that would change nothing for this data set, and why."""
    weighting = [f"task_weighting {recipe.task_weighting}"] if recipe.task_weighting != "fixed" else []
    weighting += [f"task_weights {name}" for name in recipe.task_weights]
    if weighting and len(dataset.tasks) == 1:
        yield weighting, "there is one task, and nothing to weigh it against"
    known = any(recipe.label_loss in task.facts.losses for task in dataset.tasks)
    if not is_plain(dataset.tasks) and recipe.label_loss != _USUAL_LOSS and not known:
        yield [f"label_loss {recipe.label_loss}"], "none of the tasks gives an image several labels"


def problem(recipe: Recipe, dataset: Dataset) -> Problem:
    """The kind of labels of one image, one class or several; tasks each have a kind of their own."""
    if recipe.tasks:
        return "auto"
    return ONE if is_plain(dataset.tasks) else MANY


def selected_by(recipe: Recipe, dataset: Dataset) -> str:
    """The score that decides which epoch is best."""
    if recipe.select_by != "auto":
        return recipe.select_by
    if not is_plain(dataset.tasks):
        return merits(dataset.tasks)[0]
    if recipe.align in methods.ALIGNMENT:
        return "information"
    return select_by_for(len(dataset.val))


def compiled(recipe: Recipe) -> str:
    """Which phases may be compiled: PCGrad runs several backward passes, which a compiled network does not support."""
    return "off" if recipe.task_weighting == "pcgrad" else recipe.compile


def backwards(recipe: Recipe, dataset: Dataset) -> int:
    """How many backward passes the shared part takes per batch."""
    return passes(recipe.task_weighting, len(dataset.tasks))


def surgery_note(recipe: Recipe, dataset: Dataset, processes: int) -> str:
    """A note about PCGrad if a step has several batches, else empty; `processes` share each batch."""
    count = processes * recipe.accumulate
    if backwards(recipe, dataset) == 1 or count == 1:
        return ""
    return (
        f"pcgrad compares the tasks' gradients within each {recipe.batch // processes} of a step's "
        f"{recipe.batch * recipe.accumulate} images, for each of {processes} process(es) and each of "
        f"{recipe.accumulate} batch(es) by itself, and adds up what is left: not quite as if a step had one batch"
    )


def smoothing(recipe: Recipe, dataset: Dataset) -> float | None:
    """Share of each target that is spread over all classes; labels that do not exclude each other have none by default.

    None if some tasks have classes, others labels, and the user chose nothing: then only classes get the default.
    """
    if not any(task.facts.several for task in dataset.tasks):
        return recipe.smoothing
    return recipe.label_smoothing if len(dataset.tasks) > 1 else recipe.label_smoothing or 0.0


def objective(settled: Recipe, loaded: Loaded, stream: UnlabelledStream | None) -> Objective:
    """The objective of a recipe; raises RecipeError if the network lacks what the method works on."""
    part = loaded.dataset.train
    if not is_plain(part.tasks):
        frequency = None  # how often each image is drawn; None: equally
        if settled.task_temperature != 1.0:
            drawn = draw_weights(part.tasks, part.targets, settled.task_temperature)
            frequency = torch.tensor(drawn, dtype=torch.float64)
        return Tasks(
            part.tasks,
            weighting=settled.task_weighting,
            weights=settled.task_weights,
            options=LossOptions(settled.label_loss, settled.smoothing, settled.label_smoothing or 0.0),
            head=loaded.groups[-1].parameters,
            shares=known_shares(part.tasks, part.truth(), frequency),
        ).to(loaded.accelerator.device)
    supervised = Supervised(
        len(part.classes),
        name=settled.label_loss,
        label_smoothing=settled.smoothing,
        class_weights=data.class_weights(part) if settled.balance == "weights" else None,
        mixup=settled.mixup,
        cutmix=settled.cutmix,
    )
    return unlabelled_objective(settled, supervised, loaded, stream)


def with_thresholds(
    dataset: Dataset, val_loader: EvaluationLoader, model: nn.Module, accelerator: Accelerator
) -> tuple[Task, ...]:
    """The tasks, with thresholds chosen on the validation images after training."""
    if not any("thresholds" in task.facts.keeps for task in dataset.tasks):
        return dataset.tasks
    return scoring.calibrated(dataset.tasks, collect(model, val_loader, accelerator, mixed=False))


def unlabelled_objective(
    recipe: Recipe, supervised: Supervised, loaded: Loaded, stream: UnlabelledStream | None
) -> Objective:
    """The supervised loss plus the recipe's terms; raises RecipeError if the network lacks what a method works on."""
    if recipe.align == "adabn":
        _require_norms(recipe, loaded.model)
    chosen = discover.chosen(recipe)
    if stream is None or not chosen:
        return supervised
    device = loaded.accelerator.device
    features = width(loaded.model, loaded.config.input_size, device)
    sizes = TermSizes(features, supervised.classes, len(stream.images.train), recipe.threshold)
    seed_all(recipe.seed, "objective")
    terms = [(method(sizes), weight * method.weight) for method, weight in chosen]
    return Combined(supervised, terms, ratio(recipe)).to(device)


def _require_norms(recipe: Recipe, model: nn.Module) -> None:
    pretrained = recipe.strategy != "scratch" and recipe.weights != "none"  # fresh norms look like folded ones
    if pretrained and saved.has_folded_norms(model):
        why = "these weights have folded batch norms: the statistics are part of the convolutions"
    elif not tracking_norms(model):
        why = "the network has no norms that keep statistics"
    else:
        return
    raise RecipeError(
        "--align adabn has nothing to adapt", why=why, fix="choose another method, or a backbone with batch norm"
    )
