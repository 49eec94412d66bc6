"""Automatic choices: one decider each, in the order in which they are made."""

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
from zoo.training.norms.synchronised import synchronises

FEW_LABELLED = 500  # labelled images below which each counts, and a second training takes little


Decider = Callable[[Recipe, Loaded], Decision]


def batch_size(recipe: Recipe, loaded: Loaded) -> Decision:
    """The usual batch or, with auto, the one that is found by trying.

    The rates are left alone: how they should follow the batch depends on the optimizer, and the plan is to show what
    was asked for.
    """
    images, unlabelled = len(loaded.dataset.train), loaded.unlabelled
    if recipe.batch_size is None:
        # An epoch is a pass over the larger set.
        beside = 0 if unlabelled is None else len(unlabelled.train) // unlabelled_stream.ratio(recipe)
        size, note = usual(max(images, beside), loaded.machine.processes)
        return Decision({"batch_size": size}, note)
    if recipe.batch_size != "auto":
        return Decision()
    loaded.emit(Progress("trying batch sizes", 0, 0))
    phase = max(loaded.planned(recipe, (1, 1), "live").phases, key=lambda phase: phase.trained_params)
    beside = unlabelled_stream.added(recipe) if phase.trains_body else 0
    back = make_objective.backwards(recipe, loaded.dataset) if phase.trains_body else 1
    best = find_batch_size(loaded, phase, recipe, backwards=back, beside=beside)
    labelled = f"labelled images, each with {beside} without labels," if beside else "images"
    tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in best.speeds.items())
    return Decision(
        {"batch_size": best.size},
        f"batches are of {best.size} images, for {best.why} ({labelled} per second: {tried}); the rates stay as they "
        f"are, where linear scaling from batches of {USUAL} would multiply them by {best.size / USUAL:g}",
    )


def norm_mode(recipe: Recipe, loaded: Loaded) -> Decision:
    """What norms do while they train."""
    norm, note = policy.mode(
        recipe,
        loaded.model,
        loaded.weights,
        len(loaded.dataset.train),
        loaded.machine.processes,
        synchronised=synchronises(loaded.model, loaded.accelerator),
        beside=unlabelled_stream.added(recipe),
        unlabelled=len(loaded.unlabelled.train) if loaded.unlabelled is not None else 0,
    )
    return Decision({"norm": norm}, note)


def second_training(recipe: Recipe, loaded: Loaded) -> Decision:
    """Whether training is done once more on all labelled images.

    Those that the person set aside to choose by are not trained on unless that is asked for.
    """
    dataset = loaded.dataset
    images = len(dataset.train) + len(dataset.val)
    apart = dataset.val.samples != dataset.train.samples
    wanted = recipe.refit == "on" or (dataset.val_cut and images < FEW_LABELLED)
    if recipe.refit == "off" or not apart or not wanted:
        return Decision({"refit": "off"})
    if recipe.soup or recipe.wise is not None:
        return Decision(
            {"refit": "off"},
            "no second training on all labelled images: averages of weights need those that choose afterwards",
        )
    why = "as --refit on asks" if recipe.refit == "on" else f"for fewer than {FEW_LABELLED} labelled images all count"
    return Decision(
        {"refit": "on"},
        f"training is done twice, {why}: when the best epoch is known, again up to it, on all {images:,} labelled "
        "images; the estimated time is that of both at the longest",
    )


def preset(recipe: Recipe, loaded: Loaded) -> Decision:
    """What the strategy uses where the person chose nothing."""
    whole = recipe.with_preset()
    return Decision({entry.name: getattr(whole, entry.name) for entry in fields(Preset)})


def workers(recipe: Recipe, loaded: Loaded) -> Decision:
    """Processes that load images."""
    if recipe.workers is not None:
        return Decision()
    quick = data.is_quick(loaded.dataset.train, loaded.config, recipe.augment or "none")
    return Decision({"workers": data.auto_workers(loaded.machine.device, loaded.machine.threads, quick=quick)})


def machine(recipe: Recipe, loaded: Loaded) -> Decision:
    """Where and how it is computed."""
    names = ("precision", "device", "threads")
    return Decision({name: getattr(loaded.machine, name) for name in names})


def task_defaults(recipe: Recipe, loaded: Loaded) -> Decision:
    """What follows from what the images answer."""
    images = loaded.dataset
    return Decision(
        {
            "problem": make_objective.problem(recipe, images),
            "select_by": make_objective.selected_by(recipe, images),
            "label_smoothing": make_objective.smoothing(recipe, images),
            "compile": make_objective.compiled(recipe),
        },
        make_objective.surgery_note(recipe, images, loaded.machine.processes),
    )


def unlabelled_ratio(recipe: Recipe, loaded: Loaded) -> Decision:
    """How many images without labels there are beside each labelled one."""
    ratio = None if loaded.unlabelled is None else unlabelled_stream.ratio(recipe)
    return Decision({"unlabelled_ratio": ratio}, unlabelled_stream.cut_note(recipe, loaded.machine.processes))


def weights(recipe: Recipe, loaded: Loaded) -> Decision:
    """The name of the weights that `default` came to: the tag in a backbone's name, or the manifest's first."""
    if recipe.weights != "default" or loaded.weights is None:
        return Decision()
    return Decision({"weights": loaded.weights.name})


# Each may rely on those above it.
DECIDERS: Sequence[Decider] = (
    batch_size,
    policy.recalibrated,  # changes the model, as no other does
    norm_mode,
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
    """The recipe with nothing left to be found but the rate of a range test, and what a person should know of it."""
    recipe, notes = loaded.recipe, []
    for decider in DECIDERS:
        made = decider(recipe, loaded)
        recipe = replace(recipe, **made.changes)
        notes += [made.note] if made.note else []
    return recipe, notes
