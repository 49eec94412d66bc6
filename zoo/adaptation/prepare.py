"""From names and choices to everything that training needs, the plan included."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from zoo import data, groups, heads, models, network, plugins, registry
from zoo.adaptation import answering, beside, costs, norms, sizing
from zoo.adaptation.beside import Besides
from zoo.adaptation.keeping import Material
from zoo.data import DataOptions, Dataset, EvaluationLoader, Part, TrainLoader
from zoo.data.unlabelled import Answers
from zoo.engine import machine as machines
from zoo.engine.events import Listener, Note, Progress
from zoo.engine.machine import Machine
from zoo.engine.memory import explained_memory
from zoo.engine.objective import Objective, with_objective
from zoo.engine.optim import decays
from zoo.engine.randomness import seed_all
from zoo.engine.range_test import RangeTest, find_rate
from zoo.engine.source import Option
from zoo.engine.synchronising import synchronised, synchronises
from zoo.groups import Group
from zoo.models import DataConfig
from zoo.planning import GroupFacts, Plan, make_plan
from zoo.recipe import Recipe
from zoo.recipe_file import RESOLVED
from zoo.spec import BackboneSpec, Weights

FEW_LABELLED = 500  # labelled images below which each counts, and a second training takes little


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything settled, nothing trained yet."""

    spec: BackboneSpec
    weights: Weights | None
    model: nn.Module  # on the device, with its new head
    groups: tuple[Group, ...]
    config: DataConfig
    dataset: Dataset
    dataset_ref: str
    fingerprint: str | None  # sha256 of all that pretrained weights brought, as they came; None from scratch
    recipe: Recipe  # as asked for
    settled: Recipe  # with automatic choices replaced
    machine: Machine
    accelerator: Accelerator
    loader: TrainLoader
    choosing: EvaluationLoader  # batches of the images that choose the epoch
    objective: Objective
    plan: Plan
    range_test: RangeTest | None
    caches: dict[str, Option]  # how phases train from kept activations, by name
    data_seconds: float  # that opening, reading and decoding the data took
    besides: Besides | None  # images without labels
    answers: Answers | None  # their labels, for the report alone

    @property
    def material(self) -> Material:
        """What activations are made of, and trained with."""
        return Material(
            self.model, self.groups, self.settled, self.dataset, self.loader, self.choosing, self.accelerator,
            (self.spec.full_name, self.dataset.name), _code(self.spec),
        )  # fmt: skip

    def resolved(self) -> dict[str, Any]:
        """The automatic choices, for the record."""
        return {
            **self.machine.record(),
            "batch_size": self.settled.batch_size,
            **{name: getattr(self.settled, name) for name in RESOLVED},
        }


def prepare(backbone: str, dataset: str, recipe: Recipe, emit: Listener, *, cost: costs.Cost | None = None) -> Prepared:
    """Open the data, build the model, and make the plan.

    Args:
        backbone: A backbone's name.
        dataset: A data set's name, folder, table, archive, or `hf:` reference.
        recipe: The person's choices.
        emit: Whoever listens.
        cost: Seconds, bytes and seconds of waiting as estimated before, for a run that goes on; None: estimate them.

    Raises:
        ZooError: Something of it cannot be had; the message says what and how to put it right.
    """
    beside.refuse_auto(recipe)
    dataset = _reference(dataset)
    if recipe.tasks:
        specs = [replace(spec, dataset=_reference(spec.dataset)) for spec in recipe.task_specs]
        recipe = replace(recipe, tasks=tuple(map(str, specs)))
    if recipe.target is not None or recipe.unlabelled is not None:
        target, unlabelled = (named and _reference(named) for named in (recipe.target, recipe.unlabelled))
        recipe = replace(recipe, target=target, unlabelled=unlabelled)
    spec = plugins.get(backbone)
    if recipe.weights not in ("default", "none", *(weights.name for weights in spec.weights)):
        recipe = replace(recipe, weights=absolute(recipe.weights))
    machine = machines.settle(recipe)
    if recipe.batch_size != "auto":
        machines.require_equal_shares(recipe.batch_size or sizing.USUAL, machine.processes)
    accelerator = machines.make_accelerator(machine)
    if not accelerator.is_main_process:
        emit = _silent
    emit(Progress("preparing the backbone", 0, 0))

    def tell(text: str) -> None:
        emit(Note(text))

    with network.session(tell):
        weights = None if recipe.strategy == "scratch" else models.resolve_weights(spec, recipe.weights)
    expected = models.expected_data_config(spec, weights, recipe.image_size)
    options = data_options(recipe, expected)
    began = time.perf_counter()
    with accelerator.main_process_first(), network.session(tell):
        opened = data.open_dataset(dataset, options, lambda stage, done, total: emit(Progress(stage, done, total)))
        answering.refuse_unfit(recipe, opened)
        images, answers = beside.opened(recipe, opened, dataset, options, emit)
        data_seconds = time.perf_counter() - began
        emit(Progress("loading weights", 0, 0))
        seed_all(recipe.seed, "model")
        model = models.build(
            spec,
            weights=weights,
            num_classes=len(opened.classes),
            drop_rate=recipe.dropout,
            image_size=recipe.image_size,
        )
    notes = [*opened.notes, *(images.notes if images else ())]
    if opened.bad:
        notes.append(f"{len(opened.bad)} unreadable image(s) were left out; run.json lists them")
    found = groups.assign(model, spec)
    heads.require(model, opened.tasks)
    facts = [_facts(model, group) for group in found]
    model.to(accelerator.device)
    if machine.device == "cuda":  # cuDNN would convert the weights in every step
        model.to(memory_format=torch.channels_last)
    config = models.data_config(model, recipe.image_size)

    def planned(current: Recipe, steps: int, norm: str) -> Plan:
        return make_plan(
            current,
            facts,
            backbone=spec.full_name,
            dataset=opened.name,
            steps_per_epoch=steps,
            norm=norm,
            notes=notes,
        )

    sized, extra, others = recipe, beside.added(recipe) if images else 0, len(images.fit) if images else 0
    if recipe.batch_size is None:
        count = max(len(opened.fit), others // beside.ratio(recipe))  # an epoch is a pass over the larger set
        size, remark = sizing.usual(count, machine.processes)
        sized = replace(recipe, batch_size=size)
        notes += [remark] if remark else []
    elif recipe.batch_size == "auto":
        emit(Progress("trying batch sizes", 0, 0))
        first = planned(_without_range_test(recipe), 1, "live")
        back = answering.backwards(recipe, opened)
        sized, remark = sizing.sized(recipe, first, model, found, accelerator, config, len(opened.fit), back, extra)
        notes.append(remark)
    fingerprint = None if weights is None else groups.fingerprint(model, found[:-1])
    recalibration = norms.recalibrated(model, weights, recipe, opened.fit, config, accelerator, emit)
    shared = synchronises(model, accelerator)
    norm, why = norms.mode(sized, model, weights, len(opened.fit), machine.processes, synchronised=shared,
                           beside=extra, unlabelled=others)  # fmt: skip
    refit, later = _refitted(recipe, opened)
    parts = answering.surgery_note(sized, opened, machine.processes), beside.cut_note(sized, machine.processes)
    notes += [note for note in (recalibration.note, why, later, *parts) if note]
    chosen = sized.with_preset()
    augment = chosen.augment or "none"
    workers = recipe.workers
    if workers is None:
        quick = data.is_quick(opened.fit, expected, augment)
        workers = data.auto_workers(machine.device, machine.threads, quick=quick)
    settled = replace(
        chosen,
        precision=machine.precision,
        device=machine.device,
        threads=machine.threads,
        workers=workers,
        norm=norm,
        recalibrate=recalibration.setting,
        problem=answering.problem(recipe, opened),
        select_by=answering.selected_by(recipe, opened),
        label_smoothing=answering.smoothing(recipe, opened),
        compile=answering.compiled(recipe),
        refit=refit,
        unlabelled_ratio=beside.ratio(recipe) if images else None,
        weights=_chosen(recipe.weights, weights),
    )
    beside.require_enough(settled, len(opened.fit), others, machine.processes)
    besides = beside.streamed(images, len(opened.fit), settled, config, accelerator) if images else None
    loader = training_loader(opened.fit, settled, besides, config, accelerator)
    choosing = data.eval_batches(
        opened.choose,
        config=config,
        batch_size=settled.batch,
        workers=workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )
    minimised = answering.objective(settled, opened.fit, besides, model, found[-1], config, accelerator)
    steps = -(-loader.steps_per_epoch // recipe.accumulate)

    range_test = None
    if recipe.lr == "auto":
        emit(Progress("range test for the learning rate", 0, 0))
        trial = planned(_without_range_test(settled), steps, norm).phases[-1]
        with explained_memory(settled.batch, config.input_size[-1]), synchronised(model, found, trial, accelerator):
            range_test = find_rate(model, found, trial, settled, loader, minimised, accelerator)
        settled = replace(settled, lr=range_test.chosen)
    plan = with_objective(planned(settled, steps, norm), minimised, settled.batch)
    material = Material(
        model, found, settled, opened, loader, choosing, accelerator, (spec.full_name, opened.name), _code(spec)
    )
    done = costs.costed(plan, material, minimised, loader, config.input_size, emit, cost)
    return Prepared(
        spec=spec,
        weights=weights,
        model=model,
        groups=found,
        config=config,
        dataset=opened,
        dataset_ref=dataset,
        fingerprint=fingerprint,
        recipe=recipe,
        settled=done.settled,
        machine=machine,
        accelerator=accelerator,
        loader=loader,
        choosing=choosing,
        objective=minimised,
        plan=done.plan,
        range_test=range_test,
        caches=done.caches,
        data_seconds=data_seconds,
        besides=besides,
        answers=answers,
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


def training_loader(
    part: Part, settled: Recipe, besides: Besides | None, config: DataConfig, accelerator: Accelerator
) -> TrainLoader:
    """This process's batches of the labelled images of a part."""
    assert settled.workers is not None
    return data.train_loader(
        part,
        config=config,
        augment=settled.augment or "none",
        batch_size=settled.batch,
        seed=settled.seed,
        balance=settled.balance,
        temperature=settled.task_temperature,
        workers=settled.workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
        steps=besides.steps if besides else None,
    )


def _without_range_test(recipe: Recipe) -> Recipe:
    return replace(recipe, lr=None) if recipe.lr == "auto" else recipe


def _refitted(recipe: Recipe, dataset: Dataset) -> tuple[str, str]:
    """Whether there is a second training, "on" or "off", and what a person should know about it.

    Args:
        recipe: What was asked for.
        dataset: The images. Those that the person set aside to choose by are not trained on unless that is asked for.
    """
    images = len(dataset.fit) + len(dataset.choose)
    apart = dataset.choose.samples != dataset.fit.samples
    wanted = recipe.refit == "on" or (dataset.choose_cut and images < FEW_LABELLED)
    if recipe.refit == "off" or not apart or not wanted:
        return "off", ""
    if recipe.soup or recipe.wise is not None:
        return "off", "no second training on all labelled images: averages of weights need those that choose afterwards"
    return "on", (
        f"when the best epoch is known, training is done once more up to it, on all {images:,} labelled images; "
        "the estimated time is that of both at the longest"
    )


def _chosen(asked: str, weights: Weights | None) -> str:
    """The name of the weights that `default` came to: the tag in a backbone's name, or the manifest's first."""
    return weights.name if asked == "default" and weights is not None else asked


def _code(spec: BackboneSpec) -> str:
    return f"{spec.distribution} {spec.version}"


def _facts(model: nn.Module, group: Group) -> GroupFacts:
    parameters = dict(model.named_parameters())
    mine = [parameters[name] for name in group.parameters]
    return GroupFacts(
        name=group.name,
        params=groups.parameter_count(model, group),
        undecayed=sum(tensor.numel() for tensor in mine if not decays(tensor)),
        has_norm=any(name.endswith("running_mean") for name in group.buffers),
    )


def _reference(named: str) -> str:
    """A data set's name as it is; a path so that it means the same from another folder."""
    return named if named in registry.load().datasets else absolute(named)


def absolute(reference: str) -> str:
    """A path that still means the same from another folder; anything else as it is."""
    return str(Path(reference).resolve()) if Path(reference).exists() else reference


def _silent(event: object) -> None:
    """Processes other than the main one tell nothing."""
