"""What a recipe comes to for what images answer: the loss, what chooses the epoch, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import nn

from zoo import data
from zoo.data import Dataset, EvaluationLoader, Part
from zoo.data.targets import draw_weights
from zoo.errors import RecipeError
from zoo.models import saved
from zoo.models.features import width
from zoo.models.layer_groups import Group
from zoo.models.preprocessing import DataConfig
from zoo.recipes import methods
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import ONE_CLASS
from zoo.tasks import scoring
from zoo.tasks.kind import LossOptions
from zoo.tasks.schema import MANY, ONE, Problem, Task, is_plain, merits
from zoo.training.collect import collect
from zoo.training.losses import discover
from zoo.training.losses.combined import Beside, TermSizes
from zoo.training.losses.objective import Objective
from zoo.training.losses.supervised import Supervised
from zoo.training.losses.task_losses import Tasks, answered, passes
from zoo.training.norms.reestimate import tracking_norms
from zoo.training.seeds import seed_all
from zoo.training.selection import select_by_for
from zoo.training.unlabelled_stream import UnlabelledStream, ratio

_USUAL_LOSS = Recipe().label_loss


def refuse_unfit(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse choices that mean nothing for what the images answer.

    Raises:
        RecipeError: All of them are listed.
    """
    plain, wrong = is_plain(dataset.tasks), []
    why = "they are not what such images are measured by"
    if not plain:
        wrong = [name for name, off in ONE_CLASS.items() if getattr(recipe, name) != off]
    elif recipe.label_loss != _USUAL_LOSS:
        wrong = [f"label_loss {recipe.label_loss}"]
    if wrong:
        why = "they need one class of each image, and here images have several labels, or answer several questions"
        if plain:
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
    """Choices about tasks that would change nothing with these ones, and why."""
    asked = [f"task_weighting {recipe.task_weighting}"] if recipe.task_weighting != "fixed" else []
    asked += [f"task_weights {name}" for name in recipe.task_weights]
    if asked and len(dataset.tasks) == 1:
        yield asked, "there is one task, and nothing to weigh it against"
    known = any(recipe.label_loss in task.facts.losses for task in dataset.tasks)
    if not is_plain(dataset.tasks) and recipe.label_loss != _USUAL_LOSS and not known:
        yield [f"label_loss {recipe.label_loss}"], "none of the tasks gives an image several labels"


def problem(recipe: Recipe, dataset: Dataset) -> Problem:
    """What an image has, one class or several labels; of tasks each has a kind of its own."""
    if recipe.tasks:
        return "auto"
    return ONE if is_plain(dataset.tasks) else MANY


def selected_by(recipe: Recipe, dataset: Dataset) -> str:
    """What makes an epoch the best one."""
    if recipe.select_by != "auto":
        return recipe.select_by
    if not is_plain(dataset.tasks):
        return merits(dataset.tasks)[0]
    if recipe.align in methods.ALIGNMENT:
        return "information"
    return select_by_for(len(dataset.val))


def compiled(recipe: Recipe) -> str:
    """Which phases may be compiled: a compiled network cannot be gone back through several times, as PCGrad does."""
    return "off" if recipe.task_weighting == "pcgrad" else recipe.compile


def backwards(recipe: Recipe, dataset: Dataset) -> int:
    """How many times a batch goes back through what is shared."""
    return passes(recipe.task_weighting, len(dataset.tasks))


def surgery_note(recipe: Recipe, dataset: Dataset, processes: int) -> str:
    """What a person should know about PCGrad where a step has several batches, empty where there is nothing.

    Args:
        recipe: With its batch size.
        dataset: The images.
        processes: That share each batch.
    """
    count = processes * recipe.accumulate
    if backwards(recipe, dataset) == 1 or count == 1:
        return ""
    return (
        f"pcgrad compares the tasks' gradients within each {recipe.batch // processes} of a step's "
        f"{recipe.batch * recipe.accumulate} images, for each of {processes} process(es) and each of "
        f"{recipe.accumulate} batch(es) by itself, and adds up what is left: not quite as if a step had one batch"
    )


def smoothing(recipe: Recipe, dataset: Dataset) -> float | None:
    """How much of a target is spread; where labels do not exclude each other nothing, unless somebody asked for it.

    None where some tasks have classes and others labels, and nobody asked: then it is the default for classes alone.
    """
    if not any(task.facts.several for task in dataset.tasks):
        return recipe.smoothing
    return recipe.label_smoothing if len(dataset.tasks) > 1 else recipe.label_smoothing or 0.0


def objective(
    settled: Recipe,
    part: Part,
    stream: UnlabelledStream | None,
    model: nn.Module,
    head: Group,
    config: DataConfig,
    accelerator: Accelerator,
) -> Objective:
    """What is minimised on the images of a part, and on those without labels beside them."""
    if not is_plain(part.tasks):
        return Tasks(
            part.tasks,
            weighting=settled.task_weighting,
            weights=settled.task_weights,
            options=LossOptions(settled.label_loss, settled.smoothing, settled.label_smoothing or 0.0),
            head=head.parameters,
            shares=_answered(part, settled.task_temperature),
        ).to(accelerator.device)
    supervised = Supervised(
        len(part.classes),
        label_smoothing=settled.smoothing,
        class_weights=data.class_weights(part) if settled.balance == "weights" else None,
        mixup=settled.mixup,
        cutmix=settled.cutmix,
    )
    return unlabelled_objective(settled, supervised, stream, model, config, accelerator.device)


def _answered(part: Part, temperature: float) -> list[float]:
    """Of each task, the share of its questions that images answer as often as these are drawn."""
    often = None
    if temperature != 1.0:
        often = torch.tensor(draw_weights(part.tasks, part.targets, temperature), dtype=torch.float64)
    return answered(part.tasks, part.truth(), often)


def with_thresholds(
    dataset: Dataset, choosing: EvaluationLoader, model: nn.Module, accelerator: Accelerator
) -> tuple[Task, ...]:
    """The tasks, with what is chosen on the validation images when training is over."""
    if not any("thresholds" in task.facts.keeps for task in dataset.tasks):
        return dataset.tasks
    return scoring.calibrated(dataset.tasks, collect(model, choosing, accelerator, mixed=False))


def unlabelled_objective(
    recipe: Recipe,
    supervised: Supervised,
    stream: UnlabelledStream | None,
    model: nn.Module,
    config: DataConfig,
    device: torch.device,
) -> Objective:
    """What is minimised: the supervised loss, and what the recipe adds to it.

    Raises:
        RecipeError: The network does not have what the method works on.
    """
    if recipe.align == "adabn":
        _require_norms(recipe, model)
    chosen = discover.chosen(recipe)
    if stream is None or not chosen:
        return supervised
    features = width(model, config.input_size, device)
    sizes = TermSizes(features, supervised.classes, len(stream.images.train), recipe.threshold)
    seed_all(recipe.seed, "objective")
    made = [(make(sizes), weight * make.weight) for make, weight in chosen]
    return Beside(supervised, made, ratio(recipe)).to(device)


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
