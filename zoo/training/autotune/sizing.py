"""The batch size of a run, where nobody chose one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelerate import Accelerator
from torch import nn

from zoo.models.layer_groups import Group
from zoo.models.saved import DataConfig
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.batch_size import find_batch_size

USUAL = 32
BATCHES = 5  # of an epoch: with fewer, training ends before it has learnt what few images can teach (docs/recipes.md)
_SMALLER = (16, 8)
_SHARE = 8  # images of a smaller batch that each process gets at least


def usual(images: int, processes: int) -> tuple[int, str]:
    """The batch size where nobody says anything, and what there is to say about it.

    Args:
        images: Training images of which an epoch is a pass.
        processes: That share each batch.
    """
    sizes = (USUAL, *(size for size in _SMALLER if size % processes == 0 and size // processes >= _SHARE))
    size = next((size for size in sizes if images // size >= BATCHES), sizes[-1])
    if size == USUAL:
        return size, ""
    return size, f"batches are of {size} images: of {USUAL}, an epoch would have only {max(1, images // USUAL)}"


def sized(
    recipe: Recipe,
    plan: Plan,
    model: nn.Module,
    groups: Sequence[Group],
    accelerator: Accelerator,
    config: DataConfig,
    training_images: int,
    backwards: int,
    beside: int = 0,
) -> tuple[Recipe, str]:
    """The recipe with a batch size that was found by trying, and what there is to say about it.

    The rates are left alone: how they should follow the batch depends on the optimizer, and the plan is to show what
    was asked for. `backwards` is how many times a batch goes back where more than the head trains, `beside` how many
    images without labels it takes there for each labelled one.
    """
    phase = max(plan.phases, key=lambda phase: phase.trained_params)
    best = find_batch_size(
        model,
        groups,
        phase,
        recipe,
        accelerator,
        input_size=config.input_size,
        training_images=training_images,
        backwards=backwards if phase.trains_body else 1,
        beside=beside if phase.trains_body else 0,
    )
    labelled = f"labelled images, each with {beside} without labels," if beside and phase.trains_body else "images"
    tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in best.speeds.items())
    return replace(recipe, batch_size=best.size), (
        f"batches are of {best.size} images, for {best.why} ({labelled} per second: {tried}); the rates stay as they "
        f"are, where linear scaling from batches of {USUAL} would multiply them by {best.size / USUAL:g}"
    )
