"""Rules of a recipe: choices that contradict each other, known without data or a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.base.durations import parse_interval
from zoo.errors import RecipeError
from zoo.recipes import methods
from zoo.tasks.schema import ONE

# Choices for single-label images only, with the values that turn them off.
ONE_CLASS = {"mixup": 0.0, "cutmix": 0.0, "balance": "none", "align": "none", "semi": "none", "target": None,
             "unlabelled": None, "soup": False, "wise": None}  # fmt: skip

# Fields from which a strategy's phases are made, which phases in full replace.
_SINGLE = ("epochs", "probe_epochs", "lr", "probe_lr", "lr_decay", "train_from")


def choice_faults(recipe: Any) -> list[str]:
    """All contradictions in a new `Recipe`, whose values may still be of any type."""
    faults = _interval_faults(recipe.checkpoint_every) + _fold_faults(recipe.fold)
    unused = [name for name in _SINGLE if getattr(recipe, name) is not None]
    if recipe.phases and unused:
        faults.append(f"phases: given in full, they leave no use for {', '.join(unused)}")
    if recipe.strategy == "probe" and recipe.train_from not in (None, "head"):
        faults.append("train_from: the strategy probe trains the head alone; use partial")
    if recipe.strategy == "scratch" and recipe.weights not in ("default", "none"):
        faults.append("weights: the strategy scratch starts from random weights; leave --weights out")
    if recipe.strategy == "probe" and recipe.weights == "none":
        faults.append("weights: a probe of random weights learns next to nothing; use --strategy scratch")
    if recipe.problem == ONE and recipe.label_separator is not None:
        faults.append("label_separator: separates several labels of an image, but problem is single-label")
    averages = recipe.soup or recipe.wise is not None
    if recipe.refit == "on" and averages:
        faults.append("refit: soup and wise need the validation images after training; leave one of them out")
    if averages and recipe.target:
        faults.append("soup and wise need labels of validation images, and the target has none; leave them out")
    if recipe.wise is not None and (recipe.strategy == "scratch" or recipe.weights == "none"):
        faults.append("wise: random weights are no start to average with")
    if recipe.balance == "weights":
        faults += [f"{name}: does not go with balance weights (mixed images have no one class); use sampler"
                   for name in ("mixup", "cutmix") if getattr(recipe, name)]  # fmt: skip
    return faults + _unlabelled_faults(recipe) + _tasks_faults(recipe)


def refuse_several(recipe: Any) -> None:
    """Raise RecipeError if the recipe leaves the alignment method open: a plan has one."""
    if len(methods.asked(recipe.align)) > 1:
        what = f"there is no one plan for --align {recipe.align}, which trains with several methods"
        raise RecipeError(what, fix="name one, such as --align dann")


def refuse_other_data(recipe: Any, dataset: str | None) -> None:
    """Raise RecipeError for a data set that none of the recipe's tasks names."""
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
        faults.append("semi: needs unlabelled images; name them with --unlabelled, or --target for another domain")
    if recipe.unlabelled is not None and recipe.target is not None:
        faults.append("unlabelled: with a target, its images are the unlabelled ones; leave one of them out")
    if recipe.unlabelled is not None and recipe.semi == "none":
        faults.append("unlabelled: nothing is learnt from these images; choose a method with --semi")
    if recipe.select_by in methods.VALIDATORS and recipe.target is None:
        faults.append(f"select_by: {recipe.select_by} looks at target images; name them with --target")
    aligned = isinstance(recipe.align, str) and {*methods.asked(recipe.align)} & {*methods.ALIGNMENT}
    if recipe.strategy == "probe" and (recipe.semi != "none" or aligned):
        faults.append("strategy: a probe keeps the features, and unlabelled images change nothing else; use finetune "
                      "or lp-ft")  # fmt: skip
    return faults


def _interval_faults(text: Any) -> list[str]:
    try:
        if isinstance(text, str) and text:  # anything else is a fault already
            parse_interval(text)
    except ValueError as error:
        return [f"checkpoint_every: {error}"]
    return []


def _fold_faults(text: Any) -> list[str]:
    if not isinstance(text, str) or not text:  # None, or a fault already
        return []
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    valid = found is not None and int(found[2]) >= 2 and 1 <= int(found[1]) <= int(found[2])
    return [] if valid else [f"fold: {text!r} is not K/N, such as 2/5 for the second of five folds"]


def _tasks_faults(recipe: Any) -> list[str]:
    if not recipe.tasks:
        own = {"task_weighting": "fixed", "task_temperature": 1.0}
        return [f"{name}: there are no tasks" for name, off in own.items() if getattr(recipe, name) != off]
    faults = []
    if recipe.task_weights and recipe.task_weighting == "uncertainty":
        faults.append("task_weights: uncertainty learns the weights; leave them out")
    if recipe.task_weighting == "pcgrad" and recipe.compile not in ("auto", "off"):
        faults.append("compile: pcgrad needs several backward passes, which a compiled network cannot do")
    if recipe.label_column is not None:
        faults.append("label_column: each task names its column")
    if recipe.problem != "auto":
        faults.append("problem: each task has a kind of its own")
    return faults + [f"{name}: needs one class of each image, which tasks do not have"
                     for name, off in ONE_CLASS.items() if getattr(recipe, name) != off]  # fmt: skip
