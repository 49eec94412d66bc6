"""From names to images and a network on the device: what comes before the choices that have to be tried."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import nn

from zoo import data
from zoo.base import references
from zoo.data import DataOptions, Dataset
from zoo.data.unlabelled import Answers, UnlabelledSet
from zoo.events import Listener, Progress
from zoo.models import heads, hub_client, lookup, preprocessing, saved
from zoo.models import layer_groups as groups
from zoo.models.layer_groups import Group
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import BackboneSpec, Weights
from zoo.recipes.plan import Plan
from zoo.recipes.planner import GroupFacts, make_plan
from zoo.recipes.recipe import Recipe
from zoo.training import machine as machines
from zoo.training import make_objective, unlabelled_stream
from zoo.training.autotune import batch_size
from zoo.training.machine import Machine
from zoo.training.optim import decays
from zoo.training.products import use_products
from zoo.training.seeds import seed_all


@dataclass(frozen=True, slots=True)
class Opened:
    """Images and network, and the choices as they were asked for."""

    spec: BackboneSpec
    weights: Weights | None
    model: nn.Module  # on the device, with its new head
    groups: tuple[Group, ...]
    config: DataConfig
    dataset: Dataset
    dataset_ref: str
    unlabelled: UnlabelledSet | None  # images without labels
    answers: Answers | None  # their labels, for the report alone
    recipe: Recipe  # as asked for, with paths that mean the same from another folder
    machine: Machine
    accelerator: Accelerator
    emit: Listener  # whoever listens to this process
    data_seconds: float  # that opening, reading and decoding the data took

    @property
    def code(self) -> str:
        """Whose code the network is."""
        return f"{self.spec.distribution} {self.spec.version}"

    def planned(self, recipe: Recipe, steps: tuple[int, int], norm: str, notes: Sequence[str] = ()) -> Plan:
        """The plan of choices.

        Args:
            recipe: With `lr` a number or None.
            steps: Optimizer steps of an epoch where the head alone trains, and where more does.
            norm: What `norm` came to.
            notes: What a person should know besides what opening has found.
        """
        found = [*self.dataset.notes, *(self.unlabelled.notes if self.unlabelled else ())]
        if self.dataset.bad:
            found.append(f"{len(self.dataset.bad)} unreadable image(s) were left out; run.json lists them")
        return make_plan(
            recipe,
            [facts(self.model, group) for group in self.groups],
            backbone=self.spec.full_name,
            dataset=self.dataset.name,
            steps_per_epoch=steps[1],
            head_steps=steps[0],
            norm=norm,
            notes=[*found, *notes],
        )


def opened(backbone: str, dataset: str, recipe: Recipe, emit: Listener) -> Opened:
    """Open the data and build the model.

    Args:
        backbone: A backbone's name.
        dataset: A data set's name, folder, table, archive, or `hf:` reference.
        recipe: The person's choices.
        emit: Whoever listens.

    Raises:
        ZooError: Something of it cannot be had; the message says what and how to put it right.
    """
    spec = lookup.get(backbone)
    dataset, recipe = references.recorded(dataset), _from_anywhere(recipe, spec)
    machine = machines.settle(recipe)
    if recipe.batch_size != "auto":
        machines.require_equal_shares(recipe.batch_size or batch_size.USUAL, machine.processes)
    accelerator = machines.make_accelerator(machine)
    if not accelerator.is_main_process:
        emit = _silent
    emit(Progress("preparing the backbone", 0, 0))

    with hub_client.session(emit):
        weights = None if recipe.strategy == "scratch" else saved.resolve_weights(spec, recipe.weights)
    options = data_options(recipe, preprocessing.expected_data_config(spec, weights, recipe.image_size))
    began = time.perf_counter()
    with accelerator.main_process_first(), hub_client.session(emit):
        images = data.open_dataset(dataset, options, lambda stage, done, total: emit(Progress(stage, done, total)))
        make_objective.refuse_unfit(recipe, images)
        unlabelled, answers = unlabelled_stream.opened(recipe, images, dataset, options, emit)
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
    found = groups.assign(model, spec)
    heads.require(model, images.tasks)
    model.to(accelerator.device)
    if machine.device == "cuda":  # cuDNN would convert the weights in every step
        model.to(memory_format=torch.channels_last)
    elif machine.device == "cpu":
        use_products(model)
    return Opened(
        spec=spec,
        weights=weights,
        model=model,
        groups=found,
        config=preprocessing.data_config(model, recipe.image_size),
        dataset=images,
        dataset_ref=dataset,
        unlabelled=unlabelled,
        answers=answers,
        recipe=recipe,
        machine=machine,
        accelerator=accelerator,
        emit=emit,
        data_seconds=data_seconds,
    )


def data_options(recipe: Recipe, config: DataConfig) -> DataOptions:
    """What a recipe says about data, with the size that images are stored at."""
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


def facts(model: nn.Module, group: Group) -> GroupFacts:
    """What planning has to know of a layer group."""
    parameters = dict(model.named_parameters())
    mine = [parameters[name] for name in group.parameters]
    return GroupFacts(
        name=group.name,
        params=groups.parameter_count(model, group),
        undecayed=sum(tensor.numel() for tensor in mine if not decays(tensor)),
        has_norm=any(name.endswith("running_mean") for name in group.buffers),
    )


def _from_anywhere(recipe: Recipe, spec: BackboneSpec) -> Recipe:
    """The recipe with what it names so that it means the same from another folder."""
    tasks = [replace(task, dataset=references.recorded(task.dataset)) for task in recipe.task_specs]
    target, unlabelled = (named and references.recorded(named) for named in (recipe.target, recipe.unlabelled))
    known = recipe.weights in ("default", "none", *(weights.name for weights in spec.weights))
    return replace(recipe, tasks=tuple(map(str, tasks)), target=target, unlabelled=unlabelled,
                   weights=recipe.weights if known else references.absolute(recipe.weights))  # fmt: skip


def _silent(event: object) -> None:
    """Processes other than the main one tell nothing."""
