"""Out-of-fold predictions: each member is retrained once for each fold that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from zoo import data
from zoo.errors import DataError, RecipeError
from zoo.events import Listener, Note, Progress
from zoo.models import saved
from zoo.recipes.recipe import Recipe
from zoo.runs import train
from zoo.runs.load import data_options
from zoo.runs.recipe_file import of_runs, recipe_of_run
from zoo.runs.run_folder import Run
from zoo.runs.stacked import held_out
from zoo.runs.stacked.combine import MemberOutputs
from zoo.runs.stacked.held_out import DIFFERENT, HeldOut
from zoo.runs.stacked.members import StackMember
from zoo.runs.stacked.model import Panel

_BATCH = 32


def refuse_other_images(chosen: Sequence[StackMember], found: HeldOut) -> None:
    """Raises DataError if members have different images, or fewer than `LEAST` of a class.

    Raises RecipeError if one was trained without a fold already, or was not trained at all.
    """
    for member in chosen:
        if of_runs(member.record):
            raise RecipeError(
                f"{member.run.path} was put together from runs, and cannot be retrained without a fold",
                fix="name its runs instead, or leave --folds out",
            )
    if not found.same:
        raise DataError("the members were not adapted to the same images, so no folds are common", fix=DIFFERENT)
    # Folds are cut from train, and from val if that was cut from train too.
    cut = [found.dataset.train, *([found.dataset.val] if found.dataset.val_cut else [])]
    each = [sum(count) for count in zip(*(part.class_counts() for part in cut), strict=True)]
    if min(each) < held_out.LEAST:
        raise DataError(
            "there are too few images to fit a combination on",
            why=f"the class {found.val.classes[each.index(min(each))]} has {min(each)} training images in all, "
            f"and at least {held_out.LEAST} of each are needed",
            fix="adapt with more images",
        )
    for member in chosen:
        if member.recipe.fold is not None:
            raise RecipeError(f"{member.run.path} left out a fold itself", fix="name runs that saw all of the images")


def out_of_fold(
    chosen: Sequence[StackMember],
    folds: int,
    root: Path,
    classes: Sequence[str],
    accelerator: Accelerator,
    emit: Listener,
) -> MemberOutputs:
    """Adapt every member again without each fold, and predict that fold.

    Finished runs in `root` are not done again, and one that was stopped is resumed. Features are left out: those of
    another training of a network mean something else.
    """
    # The members' images are the same, but their seeds would cut different folds.
    cut_seed = chosen[0].recipe.cut_seed
    found: list[MemberOutputs] = []
    for number in range(1, folds + 1):
        parts = []
        for place, member in enumerate(chosen):
            emit(Note(f"fold {number} of {folds}: {member.name}"))
            recipe = replace(member.recipe, fold=f"{number}/{folds}", data_seed=cut_seed)
            run = _adapted(member, recipe, root / f"{place}-{number}-of-{folds}", emit)
            parts.append(_about_its_fold(run, member, classes, accelerator, emit))
        if len({tuple(ids) for _, ids in parts}) > 1:
            raise DataError("the members' folds contain different images", fix=DIFFERENT)
        one = [each for each, _ in parts]
        found.append(MemberOutputs(torch.cat([each.logs for each in one]), (), one[0].labels))
    return MemberOutputs(
        torch.cat([each.logs for each in found], dim=1), (), torch.cat([each.labels for each in found])
    )


def _adapted(member: StackMember, recipe: Recipe, path: Path, emit: Listener) -> Run:
    run = Run(path)
    if run.record_path.is_file():
        return run if run.finished else train.go_on(path, emit)
    return train.start(member.record["backbone"]["name"], member.dataset, recipe, path, emit)


def _about_its_fold(
    run: Run, member: StackMember, classes: Sequence[str], accelerator: Accelerator, emit: Listener
) -> tuple[MemberOutputs, list[str]]:
    panel = Panel([saved.load(run.path)], classes)
    panel.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    options = data_options(recipe_of_run(run.record).recipe, panel.configs[0])
    part = data.open_dataset(member.dataset, options).test
    return panel.over(part, _BATCH, lambda done: emit(Progress("predicting the fold", done, len(part)))), part.ids
