"""Images without labels beside the labelled ones: opened, streamed to training, looked at when epochs are compared."""

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

MU = 7  # images without labels beside each labelled one to learn from guesses, as in FixMatch


@dataclass(frozen=True, slots=True)
class UnlabelledStream:
    """The images without labels, and how training and choosing get them; None where they do not."""

    images: UnlabelledSet
    views: tuple[TrainLoader, ...]  # one for each view that a method wants of the same images
    val_loader: EvaluationLoader | None  # target images on which epochs are compared
    steps: int  # batches of an epoch in which more than the head trains: of a pass over the larger of both sets

    def joined(self, labelled: TrainLoader) -> Callable[[int, int], Iterator[Batch]]:
        """Labelled batches, with images without labels beside each."""

        def epoch(number: int, start: int) -> Iterator[Batch]:
            streams = [view.epoch(number, start, self.steps) for view in self.views]
            for batch, *others in zip(labelled.epoch(number, start, self.steps), *streams, strict=True):
                views = tuple(other.images for other in others)
                yield replace(batch, unlabelled=Unlabelled(views, others[0].indices))

        return epoch

    def look(self, candidate: nn.Module, accelerator: Accelerator) -> torch.Tensor | None:
        """What a candidate says about the target images that epochs are compared on, (N, classes)."""
        return None if self.val_loader is None else collect(candidate, self.val_loader, accelerator, mixed=True).logits


def reference(recipe: Recipe) -> str | None:
    """What the recipe says about images without labels: those of another domain, or more of the same."""
    return recipe.target or recipe.unlabelled


def opened(
    recipe: Recipe, dataset: Dataset, reference_of_dataset: str, options: DataOptions, emit: Listener
) -> tuple[UnlabelledSet, TrueLabels | None] | tuple[None, None]:
    """The images without labels that a recipe names, and the answers for the report; None where there are none.

    Images that the result is measured on are not trained on: neither where both are taken from the same place, nor
    where copies of them are found elsewhere. Of very many images nobody knows the content; then that is said.
    """
    named = reference(recipe)
    if named is None:
        return None, None
    same = named == reference_of_dataset
    report = dataset.test
    known = dataset.contents.get("test")
    images, answers = open_unlabelled(
        named,
        dataset.classes,
        options if same else replace(options, config=None),
        lambda stage, done, total: emit(Progress(stage, done, total)),
        labelled=recipe.target is not None,
        without={report.id(place) for place in range(len(report))} if same else (),
        contents=known or (),
    )
    if known is None and not same:
        images = replace(images, notes=(*images.notes, _unknown(dataset, images)))
    return images, answers


def _unknown(dataset: Dataset, images: UnlabelledSet) -> str:
    return (
        f"whether images of {images.name} are copies of those that the result is measured on is not known: "
        f"the images of {dataset.name} are too many to be compared, so keep the two apart"
    )


def streamed(
    images: UnlabelledSet, labelled: int, recipe: Recipe, config: DataConfig, accelerator: Accelerator
) -> UnlabelledStream:
    """The loaders of images without labels.

    Args:
        images: The images.
        labelled: Images with labels.
        recipe: With automatic choices replaced.
        config: What the network expects.
        accelerator: Device and processes.
    """
    shared: dict[str, Any] = {
        "config": config,
        "workers": recipe.workers or 0,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "device": accelerator.device,
    }
    batch = recipe.batch * ratio(recipe)
    steps = max(labelled // recipe.batch, len(images.train) // batch, 1)
    views = []
    for number in range(discover.views(recipe)):
        # With the seed of the labelled images, sets of equal size would come in the same order: the same places of both
        # in one batch, and where their files are sorted by class, the same classes.
        views.append(
            data.train_loader(
                images.train,
                augment="strong" if number else recipe.augment or "none",
                batch_size=batch,
                seed=derive(recipe.seed, "unlabelled"),
                **shared,
            )
        )
    choosing = data.eval_batches(images.val, batch_size=recipe.batch, **shared) if recipe.target else None
    return UnlabelledStream(images, tuple(views), choosing, steps)


def ratio(recipe: Recipe) -> int:
    """Images without labels beside each labelled one."""
    return recipe.unlabelled_ratio or (MU if recipe.semi != "none" else 1)


def added(recipe: Recipe) -> int:
    """Images without labels that a step takes for each labelled one where the features train, all views counted."""
    return ratio(recipe) * discover.views(recipe)


def cut_note(recipe: Recipe, processes: int) -> str:
    """What a person should know of methods that look at a batch as a whole, where a step has several parts.

    Args:
        recipe: With its batch size.
        processes: That share each batch.
    """
    names = [method.name for method, _ in discover.chosen(recipe) if method.whole]
    if not names or processes * recipe.accumulate == 1:
        return ""
    return (
        f"{' and '.join(names)} compares images within each {recipe.batch // processes} labelled ones of a step's "
        f"{recipe.batch * recipe.accumulate} (and those without labels beside them), for each of {processes} "
        f"process(es) and each of {recipe.accumulate} batch(es) by itself: not quite as if a step had one batch"
    )


def require_enough(recipe: Recipe, labelled: int, images: int, processes: int) -> None:
    """Refuse batches in which a method sees too few images of a domain to say anything.

    Args:
        recipe: With its batch size.
        labelled: Images with labels.
        images: Images without.
        processes: That share each batch.

    Raises:
        RecipeError: There are fewer than it needs.
    """
    seen = min(min(recipe.batch, labelled), min(recipe.batch * ratio(recipe), images)) // processes
    for method, _ in discover.chosen(recipe):
        if seen < method.least:
            raise RecipeError(
                f"{method.name} needs {method.least} images of each domain in every process's part of a batch",
                why=f"there would be {seen}, and no method can tell how such images differ among themselves",
                fix=f"--batch-size {method.least * processes} or more, and as many images of each domain",
            )


def guesses(states: Path) -> list[tuple[int, int, np.ndarray[Any, Any]]]:
    """Phase (from 0), epoch and the guesses of each epoch that was finished, in order, from where states are saved."""
    found = []
    for path in sorted(states.glob("guesses-*.npy")):
        _, phase, epoch = path.stem.split("-")
        found.append((int(phase), int(epoch), np.load(path, allow_pickle=False)))
    return found
