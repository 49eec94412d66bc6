"""Load data and model: from names to images, and a network on the device."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from zoo import data
from zoo.base import references
from zoo.data import DataOptions
from zoo.events import Listener, Progress, ignore
from zoo.models import heads, hub_client, layer_groups, lookup, preprocessing, saved
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import BackboneSpec
from zoo.recipes.recipe import Recipe
from zoo.training import machine as machines
from zoo.training import make_objective, unlabelled_stream
from zoo.training.autotune import batch_size
from zoo.training.loaded import Loaded
from zoo.training.products import use_products
from zoo.training.seeds import seed_all


def load(backbone: str, dataset: str, recipe: Recipe, emit: Listener) -> Loaded:
    """Open the data set (a name, folder, table, archive, or `hf:` reference) and build the model."""
    spec = lookup.get(backbone)
    dataset, recipe = references.recorded(dataset), _from_anywhere(recipe, spec)  # existing paths made absolute
    machine = machines.settle(recipe)
    if recipe.batch_size != "auto":
        machines.require_equal_shares(recipe.batch_size or batch_size.USUAL, machine.processes)
    accelerator = machines.make_accelerator(machine)
    if not accelerator.is_main_process:
        emit = ignore
    emit(Progress("preparing the backbone", 0, 0))

    with hub_client.session(emit):
        weights = None if recipe.strategy == "scratch" else saved.resolve_weights(spec, recipe.weights)
    options = data_options(recipe, preprocessing.expected_data_config(spec, weights, recipe.image_size))
    began = time.perf_counter()
    with accelerator.main_process_first(), hub_client.session(emit):
        images = data.open_dataset(dataset, options, lambda stage, done, total: emit(Progress(stage, done, total)))
        make_objective.refuse_unfit(recipe, images)
        unlabelled, true_labels = unlabelled_stream.load_unlabelled(recipe, images, dataset, options, emit)
        data_seconds = time.perf_counter() - began
        emit(Progress("loading weights", 0, 0))
        seed_all(recipe.seed, "model")
        model = saved.build(
            spec,
            weights=weights,
            num_classes=len(images.classes),
            drop_rate=recipe.dropout,
            image_size=recipe.image_size,
        )
    groups = layer_groups.assign(model, spec)
    heads.require(model, images.tasks)
    model.to(accelerator.device)
    if machine.device == "cuda":  # cuDNN would convert the weights in every step
        model.to(memory_format=torch.channels_last)
    elif machine.device == "cpu":
        use_products(model)
    return Loaded(
        spec=spec,
        weights=weights,
        fingerprint=None if weights is None else layer_groups.fingerprint(model, groups[:-1]),
        model=model,
        groups=groups,
        config=preprocessing.data_config(model, recipe.image_size),
        dataset=images,
        dataset_ref=dataset,
        unlabelled=unlabelled,
        true_labels=true_labels,
        recipe=recipe,
        machine=machine,
        accelerator=accelerator,
        emit=emit,
        data_seconds=data_seconds,
    )


def data_options(recipe: Recipe, config: DataConfig) -> DataOptions:
    """The data options of a recipe, with the size to store images at."""
    return DataOptions(
        path_column=recipe.path_column,
        label_column=recipe.label_column,
        problem=recipe.problem,
        label_separator=recipe.label_separator,
        specs=recipe.task_specs,
        config=recipe.dataset_config,
        train_per_class=recipe.train_per_class,
        limit=recipe.limit,
        val_fraction=recipe.val_fraction,
        on_bad_image=recipe.on_bad_image,
        fold=recipe.held_fold,
        seed=recipe.cut_seed,
        image_size=data.store_side(config),
        interpolation=config.interpolation,
        store_bytes=int(1e9 * recipe.store_gb),
    )


def _from_anywhere(recipe: Recipe, spec: BackboneSpec) -> Recipe:
    """The recipe with absolute paths, so that it means the same in another working directory."""
    tasks = [replace(task, dataset=references.recorded(task.dataset)) for task in recipe.task_specs]
    target, unlabelled = (named and references.recorded(named) for named in (recipe.target, recipe.unlabelled))
    known = recipe.weights in ("default", "none", *(weights.name for weights in spec.weights))
    return replace(recipe, tasks=tuple(map(str, tasks)), target=target, unlabelled=unlabelled,
                   weights=recipe.weights if known else references.absolute(recipe.weights))  # fmt: skip
