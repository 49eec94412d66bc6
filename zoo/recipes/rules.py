"""What does not go together in a recipe; every combination that needs neither data nor a network is refused here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.base.durations import parse_interval
from zoo.errors import RecipeError
from zoo.recipes import methods
from zoo.tasks.schema import ONE

# Choices that need one class of each image, when they are off.
ONE_CLASS = {"mixup": 0.0, "cutmix": 0.0, "balance": "none", "align": "none", "semi": "none", "target": None,
             "unlabelled": None, "soup": False, "wise": None}  # fmt: skip

# What a strategy's phases are made from; phases in full say all of it themselves.
_SINGLE = ("epochs", "probe_epochs", "lr", "probe_lr", "lr_decay", "train_from")


def choice_faults(recipe: Any) -> list[str]:
    """All that does not go together.

    Args:
        recipe: A `Recipe`, which calls this when it is made; its values may still be of any type.
    """
    faults = _interval_faults(recipe.checkpoint_every) + _fold_faults(recipe.fold)
    beside = [name for name in _SINGLE if getattr(recipe, name) is not None]
    if recipe.phases and beside:
        faults.append(f"phases: given in full, they leave no use for {', '.join(beside)}")
    if recipe.strategy == "probe" and recipe.train_from not in (None, "head"):
        faults.append("train_from: the strategy probe trains the head alone; use partial")
    if recipe.strategy == "scratch" and recipe.weights not in ("default", "none"):
        faults.append("weights: the strategy scratch starts from random weights; leave --weights out")
    if recipe.strategy == "probe" and recipe.weights == "none":
        faults.append("weights: a probe of random weights learns next to nothing; use --strategy scratch")
    if recipe.problem == ONE and recipe.label_separator is not None:
        faults.append("label_separator: separates several labels of an image, and problem says single-label")
    if recipe.refit == "on" and (recipe.soup or recipe.wise is not None):
        faults.append("refit: soup and wise need the images that choose after training; leave one of them out")
    if (recipe.soup or recipe.wise is not None) and recipe.target:
        faults.append("soup and wise are chosen by labels, and the target has none that may choose; leave them out")
    if recipe.wise is not None and (recipe.strategy == "scratch" or recipe.weights == "none"):
        faults.append("wise: random weights are no start to average with")
    if recipe.mixup and recipe.balance == "weights":
        faults.append("mixup: does not go with balance weights (mixed images have no one class); use sampler")
    if recipe.cutmix and recipe.balance == "weights":
        faults.append("cutmix: does not go with balance weights (mixed images have no one class); use sampler")
    return faults + _unlabelled_faults(recipe) + _tasks_faults(recipe)


def refuse_several(recipe: Any) -> None:
    """A plan is of one method.

    Raises:
        RecipeError: The recipe leaves it to be found.
    """
    if len(methods.asked(recipe.align)) > 1:
        raise RecipeError(
            f"there is no one plan for --align {recipe.align}, which trains with several methods",
            fix="name one, such as --align dann",
        )


def refuse_other_data(recipe: Any, dataset: str | None) -> None:
    """Refuse a data set beside tasks, each of which names its own.

    Raises:
        RecipeError: None of them names this one.
    """
    named = [spec.dataset for spec in recipe.task_specs]
    if named and dataset is not None and Path(dataset).resolve() not in [Path(name).resolve() for name in named]:
        raise RecipeError(
            f"each task names its data set, and none of them names {dataset}",
            why=f"the tasks are of {', '.join(dict.fromkeys(named))}",
            fix=f"leave the data set out, or name it in each task: --task {recipe.task_specs[0].name}={dataset}…",
        )


def _unlabelled_faults(recipe: Any) -> list[str]:
    faults = []
    if recipe.align != "none" and recipe.target is None:
        faults.append("align: needs images to adapt to; name them with --target")
    if recipe.semi != "none" and recipe.target is None and recipe.unlabelled is None:
        faults.append("semi: needs images without labels; name them with --unlabelled, or --target for another domain")
    if recipe.unlabelled is not None and recipe.target is not None:
        faults.append("unlabelled: with a target, its images are the ones without labels; leave one of them out")
    if recipe.unlabelled is not None and recipe.semi == "none":
        faults.append("unlabelled: nothing is learnt from these images; choose a method with --semi")
    if recipe.select_by in methods.VALIDATORS and recipe.target is None:
        faults.append(f"select_by: {recipe.select_by} looks at target images; name them with --target")
    aligned = isinstance(recipe.align, str) and {*methods.asked(recipe.align)} & {*methods.ALIGNMENT}
    if recipe.strategy == "probe" and (recipe.semi != "none" or aligned):
        faults.append("strategy: a probe leaves the features as they are, and images without labels change nothing else"
                      "; use finetune or lp-ft")  # fmt: skip
    return faults


def _interval_faults(text: Any) -> list[str]:
    if not isinstance(text, str) or not text:  # which is said already
        return []
    try:
        parse_interval(text)
    except ValueError as error:
        return [f"checkpoint_every: {error}"]
    return []


def _fold_faults(text: Any) -> list[str]:
    if not isinstance(text, str) or not text:  # nothing, or it is said already
        return []
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    if found is None or not (int(found[2]) >= 2 and 1 <= int(found[1]) <= int(found[2])):
        return [f"fold: {text!r} is no part of a whole; 2/5 is the second of five"]
    return []


def _tasks_faults(recipe: Any) -> list[str]:
    """What goes with tasks alone, and what does not."""
    if not recipe.tasks:
        own = {"task_weighting": "fixed", "task_temperature": 1.0}
        return [f"{name}: there are no tasks" for name, off in own.items() if getattr(recipe, name) != off]
    faults = []
    if recipe.task_weights and recipe.task_weighting == "uncertainty":
        faults.append("task_weights: uncertainty learns the weights; leave them out")
    if recipe.task_weighting == "pcgrad" and recipe.compile not in ("auto", "off"):
        faults.append("compile: pcgrad goes back through the network several times, which a compiled one cannot")
    if recipe.label_column is not None:
        faults.append("label_column: each task names its column")
    if recipe.problem != "auto":
        faults.append("problem: each task has a kind of its own")
    faults += [f"{name}: needs one class of each image, and tasks ask more of them"
               for name, off in ONE_CLASS.items() if getattr(recipe, name) != off]  # fmt: skip
    return faults
