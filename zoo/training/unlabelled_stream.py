"""Unlabelled images alongside labelled ones: opened, batched for training, used for selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from zoo import data
from zoo.data import Batch, DataOptions, Dataset, EvaluationLoader, TrainLoader, Unlabelled
from zoo.data.unlabelled import TrueLabels, UnlabelledSet, open_unlabelled
from zoo.errors import RecipeError
from zoo.events import Listener, Progress
from zoo.models.preprocessing import DataConfig
from zoo.recipes.recipe import Recipe
from zoo.training.collect import collect
from zoo.training.losses import discover
from zoo.training.seeds import derive

MU = 7  # unlabelled images for each labelled one to learn from pseudo-labels, as in FixMatch


@dataclass(frozen=True, slots=True)
class UnlabelledStream:
    """The unlabelled images, and their loaders for training and selection."""

    images: UnlabelledSet
    views: tuple[TrainLoader, ...]  # one for each view of the same images that a method needs
    val_loader: EvaluationLoader | None  # target images on which epochs are compared
    steps: int  # batches of an epoch in which more than the head trains: a pass over the larger of both sets

    def joined(self, labelled: TrainLoader) -> Callable[[int, int], Iterator[Batch]]:
        """Labelled batches, each with its unlabelled images."""

        def epoch(number: int, start: int) -> Iterator[Batch]:
            streams = [view.epoch(number, start, self.steps) for view in self.views]
            for batch, *others in zip(labelled.epoch(number, start, self.steps), *streams, strict=True):
                views = tuple(other.images for other in others)
                yield replace(batch, unlabelled=Unlabelled(views, others[0].indices))

        return epoch

    def predict(self, candidate: nn.Module, accelerator: Accelerator) -> torch.Tensor | None:
        """A candidate's logits (N, classes) for the target images that epochs are compared on, if there are any."""
        return None if self.val_loader is None else collect(candidate, self.val_loader, accelerator, mixed=True).logits


def reference(recipe: Recipe) -> str | None:
    """The recipe's data set of unlabelled images: of another domain, or more of the same."""
    return recipe.target or recipe.unlabelled


def load_unlabelled(
    recipe: Recipe, dataset: Dataset, dataset_ref: str, options: DataOptions, emit: Listener
) -> tuple[UnlabelledSet, TrueLabels | None] | tuple[None, None]:
    """Returns a recipe's unlabelled images and, for the report only, their true labels; None if it names none.

    Test images are left out: if both come from the same place, and copies of them elsewhere. If the data set is too
    large to have been compared, a note says that copies are possible.
    """
    ref = reference(recipe)
    if ref is None:
        return None, None
    same, contents = ref == dataset_ref, dataset.contents.get("test")
    images, true_labels = open_unlabelled(
        ref,
        dataset.classes,
        options if same else replace(options, config=None),
        lambda stage, done, total: emit(Progress(stage, done, total)),
        labelled=recipe.target is not None,
        without={dataset.test.id(position) for position in range(len(dataset.test))} if same else (),
        contents=contents or (),
    )
    if contents is None and not same:
        note = (
            f"whether images of {images.name} are copies of test images is not known: {dataset.name} has too many "
            "images to compare, so keep the two apart"
        )
        images = replace(images, notes=(*images.notes, note))
    return images, true_labels


def make_stream(
    images: UnlabelledSet, labelled: int, recipe: Recipe, config: DataConfig, accelerator: Accelerator
) -> UnlabelledStream:
    """Returns the loaders of the unlabelled images; `labelled` is the number of training images."""
    shared: dict[str, Any] = {
        "config": config,
        "workers": recipe.workers or 0,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "device": accelerator.device,
    }
    batch = recipe.batch * ratio(recipe)
    steps = max(labelled // recipe.batch, len(images.train) // batch, 1)
    # With the seed of the labelled images, sets of equal size would come in the same order: the same positions of both
    # in one batch and, if their files are sorted by class, the same classes.
    seed = derive(recipe.seed, "unlabelled")
    presets = ["strong" if number else recipe.augment or "none" for number in range(discover.views(recipe))]
    views = tuple(
        data.train_loader(images.train, augment=preset, batch_size=batch, seed=seed, **shared) for preset in presets
    )
    val_loader = data.eval_batches(images.val, batch_size=recipe.batch, **shared) if recipe.target else None
    return UnlabelledStream(images, views, val_loader, steps)


def ratio(recipe: Recipe) -> int:
    """Unlabelled images for each labelled one."""
    return recipe.unlabelled_ratio or (MU if recipe.semi != "none" else 1)


def images_per_labelled(recipe: Recipe) -> int:
    """Unlabelled images, all views counted, that a step takes for each labelled one while the features train."""
    return ratio(recipe) * discover.views(recipe)


def cut_note(recipe: Recipe, processes: int) -> str:
    """A note about methods that compare a batch's images if a step has several parts, else empty."""
    names = [method.name for method, _ in discover.chosen(recipe) if method.whole]
    if not names or processes * recipe.accumulate == 1:
        return ""
    return (
        f"{' and '.join(names)} compares images within each {recipe.batch // processes} labelled ones of a step's "
        f"{recipe.batch * recipe.accumulate} (and their unlabelled ones), for each of {processes} "
        f"process(es) and each of {recipe.accumulate} batch(es) by itself: not quite as if a step had one batch"
    )


def require_enough(recipe: Recipe, labelled: int, images: int, processes: int) -> None:
    """Raises RecipeError if a method would see too few images of a domain in a process's part of a batch."""
    seen = min(min(recipe.batch, labelled), min(recipe.batch * ratio(recipe), images)) // processes
    for method, _ in discover.chosen(recipe):
        if seen < method.least:
            raise RecipeError(
                f"{method.name} needs {method.least} images of each domain in every process's part of a batch",
                why=f"there would be {seen}, too few to tell how images of a domain differ among themselves",
                fix=f"--batch-size {method.least * processes} or more, and as many images of each domain",
            )


def target_predictions(states: Path) -> list[tuple[int, int, np.ndarray[Any, Any]]]:
    """Phase (from 0), epoch and predicted classes (N,) of each finished epoch, in order, from the folder of states."""
    paths = [(path, path.stem.split("-")) for path in sorted(states.glob("guesses-*.npy"))]
    return [(int(phase), int(epoch), np.load(path, allow_pickle=False)) for path, (_, phase, epoch) in paths]
