"""Norm policy: live or fixed statistics while training, and recalibration before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from accelerate.utils import broadcast, broadcast_object_list

from zoo import data
from zoo.data import Part
from zoo.events import Progress
from zoo.models import saved
from zoo.recipes.recipe import Recipe
from zoo.tasks.schema import is_plain
from zoo.training.loaded import Decision, Loaded
from zoo.training.memory import explained_memory
from zoo.training.norms.reestimate import features, is_better, recalibrate, shift, tracking_norms
from zoo.training.norms.synchronised import synchronises
from zoo.training.probe import cross_validated
from zoo.training.seeds import derive
from zoo.training.unlabelled_stream import images_per_labelled

SMALL_BATCH = 8  # images that are normalised together, below which a batch's own statistics are too noisy to train with
FEW_TRAINED = 500  # training images below which pretrained norm statistics are better than their own
SHIFTED = 0.4  # of `shift`: photographs have less than 0.3, and there is little to win (docs/recipes.md)
IMAGES = 1024  # to estimate statistics from, at most
_JUDGES, _CLASSES = 512, 50  # images of the probe that compares, and their classes, at most
_LEAST = 16  # images of the probe, at least
_BATCH = 32
_STRENGTH = 1e-2  # of the probe's penalty

_OFF = Decision({"recalibrate": "off"})


def norm_mode(recipe: Recipe, loaded: Loaded) -> Decision:
    """Whether training groups have live or fixed norm statistics, with a note if the user should know."""
    mode, note = _mode(recipe, loaded)
    return Decision({"norm": mode}, note)


def _mode(recipe: Recipe, loaded: Loaded) -> tuple[str, str]:
    model, weights, processes = loaded.model, loaded.weights, loaded.machine.processes
    if recipe.norm != "fixed" and weights is not None and saved.has_folded_norms(model):
        if recipe.norm == "live":
            return "live", "these weights have folded batch norms: training their norms live will likely ruin them"
        return "fixed", "these weights have folded batch norms, so norm statistics stay fixed"
    if not tracking_norms(model):
        return "fixed" if recipe.norm == "fixed" else "live", ""
    shared = synchronises(model, loaded.accelerator)
    whose = "live batch-norm statistics are per process: runs with other process counts differ slightly"
    if shared:
        whose = f"live batch-norm statistics are those of all {processes} processes together"
    if recipe.norm != "auto":
        return recipe.norm, whose if recipe.norm == "live" and processes > 1 else ""
    images, batch, ratio = len(loaded.dataset.train), recipe.batch, images_per_labelled(recipe)
    together = min(batch, images)  # images that one norm sees at once
    if loaded.unlabelled is not None and ratio:
        unlabelled = len(loaded.unlabelled.train)
        together, images = together + min(batch * ratio, unlabelled), images + unlabelled
    if weights is not None and together // (1 if shared else processes) < SMALL_BATCH:
        each = "" if shared else " per process"
        return "fixed", f"norm statistics stay fixed in training: batches are under {SMALL_BATCH} images{each}"
    if weights is not None and images < FEW_TRAINED:
        return "fixed", f"norm statistics stay fixed in training: {images} images are too few to follow"
    return "live", whose if processes > 1 else ""


def recalibrated(recipe: Recipe, loaded: Loaded) -> Decision:
    """Re-estimate the norm statistics of pretrained weights on training images, on request or if it is better.

    This changes the model. If images look different (`shift`) and have one class each, a linear probe on the features,
    cross-validated on training images, decides. One process decides for all.
    """
    model, part, accelerator = loaded.model, loaded.dataset.train, loaded.accelerator
    norms = [] if loaded.weights is None or saved.has_folded_norms(model) else tracking_norms(model)
    if recipe.recalibrate == "off" or not norms or len(part) < 2:
        missing = recipe.recalibrate == "on" and loaded.weights is not None
        return replace(_OFF, note="there are no norm statistics to re-estimate") if missing else _OFF
    if recipe.recalibrate == "auto" and not is_plain(part.tasks):
        return _OFF  # there is no one class of each image for a probe to judge by
    decision = _OFF
    with explained_memory(_BATCH, loaded.config.input_size[-1]):
        if accelerator.is_main_process:
            decision = _decided(recipe, loaded)
        if accelerator.num_processes > 1:
            decision = broadcast_object_list([decision])[0]
            for norm in norms:
                for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked):
                    buffer.copy_(broadcast(buffer.detach().clone()))
    return decision


def _decided(recipe: Recipe, loaded: Loaded) -> Decision:
    model, part, accelerator = loaded.model, loaded.dataset.train, loaded.accelerator
    order = np.random.default_rng(derive(recipe.seed, "recalibration")).permutation(len(part)).tolist()
    sample = part.some(order[:IMAGES])

    def batches(of: Part) -> data.EvaluationLoader:
        return data.eval_batches(of, config=loaded.config, batch_size=_BATCH, device=accelerator.device)

    if recipe.recalibrate == "on":
        loaded.emit(Progress("re-estimating norm statistics", 0, 0))
        count = recalibrate(model, batches(sample), accelerator)
        return Decision(
            {"recalibrate": "on"}, f"norm statistics are those of {count:,} training images, not of the pretraining"
        )
    first = torch.cat([batch.images for batch in batches(part.some(order[:_BATCH]))]).to(accelerator.device)
    judges = _probe_images(part, order)
    if len(judges) < _LEAST or shift(model, first, accelerator) < SHIFTED:
        return _OFF
    loaded.emit(Progress("trying norm statistics of these images", 0, 0))
    pretrained = {name: buffer.clone() for name, buffer in model.named_buffers()}
    plain, labels = features(model, batches(judges), accelerator)
    count = recalibrate(model, batches(sample), accelerator)
    adapted, _ = features(model, batches(judges), accelerator)
    after, before = (
        cross_validated(inputs.numpy(), labels.numpy(), seed=recipe.seed, strengths=(_STRENGTH,))
        for inputs in (adapted, plain)
    )
    if is_better(after.right, before.right):
        return Decision(
            {"recalibrate": "on"},
            f"norm statistics are those of {count:,} training images, because these look different: a linear probe "
            f"classifies {after.accuracy:.0%} of {len(labels)} of them correctly, and {before.accuracy:.0%} with the "
            "pretraining's",
        )
    for name, buffer in model.named_buffers():
        buffer.copy_(pretrained[name])
    return _OFF


def _probe_images(part: Part, order: list[int]) -> Part:
    """Images of some classes, at least two of each."""
    classes = list(dict.fromkeys(part.labels[position] for position in order))[:_CLASSES]
    chosen = [position for position in order if part.labels[position] in classes][:_JUDGES]
    counts = Counter(part.labels[position] for position in chosen)
    return part.some([position for position in chosen if counts[part.labels[position]] > 1])
