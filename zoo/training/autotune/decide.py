"""Automatic choices: one decider each, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from zoo import data
from zoo.events import Progress
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import Preset
from zoo.training import make_objective, unlabelled_stream
from zoo.training.autotune import learning_rate
from zoo.training.autotune.batch_size import USUAL, find_batch_size, usual
from zoo.training.loaded import Decision, Loaded
from zoo.training.norms import policy

FEW_LABELLED = 500  # labelled images below which each counts, and a second training takes little

Decider = Callable[[Recipe, Loaded], Decision]


def batch_size(recipe: Recipe, loaded: Loaded) -> Decision:
    """The usual batch or, with auto, the one found by trying.

    The rates are left alone: how they should follow the batch depends on the optimizer, and the plan should show what
    the user chose.
    """
    images, unlabelled = len(loaded.dataset.train), loaded.unlabelled
    if recipe.batch_size is None:
        # An epoch is a pass over the larger set.
        other = 0 if unlabelled is None else len(unlabelled.train) // unlabelled_stream.ratio(recipe)
        size, note = usual(max(images, other), loaded.machine.processes)
        return Decision({"batch_size": size}, note)
    if recipe.batch_size != "auto":
        return Decision()
    loaded.emit(Progress("trying batch sizes", 0, 0))
    phase = max(loaded.planned(recipe, (1, 1), "live").phases, key=lambda phase: phase.trained_params)
    ratio = unlabelled_stream.images_per_labelled(recipe) if phase.trains_body else 0
    back = make_objective.backwards(recipe, loaded.dataset) if phase.trains_body else 1
    best = find_batch_size(loaded, phase, recipe, backwards=back, unlabelled_ratio=ratio)
    labelled = f"labelled images, each with {ratio} unlabelled ones," if ratio else "images"
    tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in best.speeds.items())
    return Decision(
        {"batch_size": best.size},
        f"batches are of {best.size} images: {best.why} ({labelled} per second: {tried}); the rates stay as they "
        f"are, where linear scaling from batches of {USUAL} would multiply them by {best.size / USUAL:g}",
    )


def second_training(recipe: Recipe, loaded: Loaded) -> Decision:
    """Whether to train again on all labelled images; the user's own validation images are used only on request."""
    dataset = loaded.dataset
    images = len(dataset.train) + len(dataset.val)
    same = dataset.val.samples == dataset.train.samples
    useful = recipe.refit == "on" or (dataset.val_cut and images < FEW_LABELLED)
    if recipe.refit == "off" or same or not useful:
        return Decision({"refit": "off"})
    if recipe.soup or recipe.wise is not None:
        return Decision(
            {"refit": "off"},
            "no second training on all labelled images: averages of weights need the validation images afterwards",
        )
    few = f"because there are fewer than {FEW_LABELLED} labelled images"
    why = "as --refit on asks" if recipe.refit == "on" else few
    return Decision(
        {"refit": "on"},
        f"training is done twice, {why}: first to find the best epoch, then up to it on all {images:,} labelled "
        "images; the estimated time is that of both at the longest",
    )


def preset(recipe: Recipe, loaded: Loaded) -> Decision:
    """The strategy's defaults for what the user did not choose."""
    whole = recipe.with_preset()
    return Decision({entry.name: getattr(whole, entry.name) for entry in fields(Preset)})


def workers(recipe: Recipe, loaded: Loaded) -> Decision:
    """Processes that load images."""
    if recipe.workers is not None:
        return Decision()
    quick = data.is_quick(loaded.dataset.train, loaded.config, recipe.augment or "none")
    return Decision({"workers": data.auto_workers(loaded.machine.device, loaded.machine.threads, quick=quick)})


def machine(recipe: Recipe, loaded: Loaded) -> Decision:
    """Device, precision and threads."""
    return Decision({name: getattr(loaded.machine, name) for name in ("precision", "device", "threads")})


def task_defaults(recipe: Recipe, loaded: Loaded) -> Decision:
    """What follows from the tasks."""
    dataset = loaded.dataset
    return Decision(
        {
            "problem": make_objective.problem(recipe, dataset),
            "select_by": make_objective.selected_by(recipe, dataset),
            "label_smoothing": make_objective.smoothing(recipe, dataset),
            "compile": make_objective.compiled(recipe),
        },
        make_objective.surgery_note(recipe, dataset, loaded.machine.processes),
    )


def unlabelled_ratio(recipe: Recipe, loaded: Loaded) -> Decision:
    """Unlabelled images for each labelled one."""
    ratio = None if loaded.unlabelled is None else unlabelled_stream.ratio(recipe)
    return Decision({"unlabelled_ratio": ratio}, unlabelled_stream.cut_note(recipe, loaded.machine.processes))


def weights(recipe: Recipe, loaded: Loaded) -> Decision:
    """The weights that `default` means: the tag in a backbone's name, or the manifest's first."""
    if recipe.weights != "default" or loaded.weights is None:
        return Decision()
    return Decision({"weights": loaded.weights.name})


# Each may rely on those above it.
DECIDERS: Sequence[Decider] = (
    batch_size,
    policy.recalibrated,  # changes the model, as no other does
    policy.norm_mode,
    second_training,
    learning_rate.from_random,
    preset,
    workers,
    machine,
    task_defaults,
    unlabelled_ratio,
    weights,
)


def decide(loaded: Loaded) -> tuple[Recipe, list[str]]:
    """The recipe with every choice settled but the rate of a range test, and notes for the user."""
    recipe, notes = loaded.recipe, []
    for decider in DECIDERS:
        decision = decider(recipe, loaded)
        recipe = replace(recipe, **decision.changes)
        notes += [decision.note] if decision.note else []
    return recipe, notes
