"""From names and choices to everything that training needs, the plan included."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from accelerate import Accelerator

from zoo import data
from zoo.data import Dataset, EvaluationLoader, Part, TrainLoader
from zoo.events import Listener, Progress
from zoo.models import layer_groups
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import Weights
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_several
from zoo.runs.load import Opened, opened
from zoo.runs.recipe_file import RESOLVED
from zoo.training import make_objective, unlabelled_stream
from zoo.training.autotune import batch_size, decide, learning_rate
from zoo.training.autotune.learning_rate import RangeTest, find_rate
from zoo.training.frozen_cache.compute import Material
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.losses.objective import Objective, with_objective
from zoo.training.memory import explained_memory
from zoo.training.norms import policy
from zoo.training.norms.synchronised import synchronised, synchronises
from zoo.training.unlabelled_stream import Besides

FEW_LABELLED = 500  # labelled images below which each counts, and a second training takes little


@dataclass(frozen=True, slots=True)
class Prepared(Opened):
    """Everything settled, nothing trained yet."""

    fingerprint: str | None  # sha256 of all that pretrained weights brought, as they came; None from scratch
    settled: Recipe  # with automatic choices replaced
    loader: TrainLoader
    choosing: EvaluationLoader  # batches of the images that choose the epoch
    objective: Objective
    plan: Plan
    range_test: RangeTest | None
    caches: dict[str, Option]  # how phases train from kept activations, by name
    besides: Besides | None  # images without labels, in batches

    @property
    def material(self) -> Material:
        """What activations are made of, and trained with."""
        return _material(self, self.settled, self.loader, self.choosing)

    def resolved(self) -> dict[str, Any]:
        """The automatic choices, for the record."""
        return {
            **self.machine.record(),
            "batch_size": self.settled.batch_size,
            **{name: getattr(self.settled, name) for name in RESOLVED},
        }


def prepare(
    backbone: str, dataset: str, recipe: Recipe, emit: Listener, *, cost: decide.Cost | None = None
) -> Prepared:
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
    refuse_several(recipe)
    found = opened(backbone, dataset, recipe, emit)
    images, model, config, accelerator = found.dataset, found.model, found.config, found.accelerator
    sized, remark = _sized(found)
    fingerprint = None if found.weights is None else layer_groups.fingerprint(model, found.groups[:-1])
    settled, remarks = _settled(found, sized)
    notes = [note for note in (remark, *remarks) if note]
    besides = None
    if found.unlabelled is not None:
        unlabelled_stream.require_enough(settled, len(images.fit), len(found.unlabelled.fit), found.machine.processes)
        besides = unlabelled_stream.streamed(found.unlabelled, len(images.fit), settled, config, accelerator)
    loader = training_loader(images.fit, settled, config, accelerator)
    choosing = _choosing_loader(images.choose, settled, config, accelerator)
    minimised = make_objective.objective(settled, images.fit, besides, model, found.groups[-1], config, accelerator)
    steps = steps_of(settled, loader, besides)
    range_test = None
    if settled.lr == "auto":
        found.emit(Progress("range test for the learning rate", 0, 0))
        trial = found.planned(_without_range_test(settled), steps, settled.norm).phases[-1]
        shared = synchronised(model, found.groups, trial, accelerator)
        with explained_memory(settled.batch, config.input_size[-1]), shared:
            range_test = find_rate(model, found.groups, trial, settled, loader, minimised, accelerator)
        settled = replace(settled, lr=range_test.chosen)
    plan = with_objective(found.planned(settled, steps, settled.norm, notes), minimised, settled.batch)
    material = _material(found, settled, loader, choosing)
    done = decide.costed(plan, material, minimised, loader, config.input_size, found.emit, cost)
    return Prepared(
        **{each.name: getattr(found, each.name) for each in fields(found)},
        fingerprint=fingerprint,
        settled=done.settled,
        loader=loader,
        choosing=choosing,
        objective=minimised,
        plan=done.plan,
        range_test=range_test,
        caches=done.caches,
        besides=besides,
    )


def _sized(found: Opened) -> tuple[Recipe, str]:
    """The recipe with a batch size, and what a person should know about it."""
    recipe, images, processes = found.recipe, len(found.dataset.fit), found.machine.processes
    if recipe.batch_size is None:
        count = images
        if found.unlabelled is not None:  # an epoch is a pass over the larger set
            count = max(images, len(found.unlabelled.fit) // unlabelled_stream.ratio(recipe))
        size, remark = batch_size.usual(count, processes)
        return replace(recipe, batch_size=size), remark
    if recipe.batch_size != "auto":
        return recipe, ""
    found.emit(Progress("trying batch sizes", 0, 0))
    return batch_size.sized(
        recipe,
        found.planned(_without_range_test(recipe), (1, 1), "live"),
        found.model,
        found.groups,
        found.accelerator,
        found.config,
        images,
        make_objective.backwards(recipe, found.dataset),
        unlabelled_stream.added(recipe),
    )


def _settled(found: Opened, sized: Recipe) -> tuple[Recipe, list[str]]:
    """The choices but for the rate with nothing left to be found, and what a person should know of them.

    Pretrained norm statistics are re-estimated in the model where they should be.
    """
    recipe, images, machine = found.recipe, found.dataset, found.machine
    recalibration = policy.recalibrated(
        found.model, found.weights, recipe, images.fit, found.config, found.accelerator, found.emit
    )
    norm, why = policy.mode(
        sized,
        found.model,
        found.weights,
        len(images.fit),
        machine.processes,
        synchronised=synchronises(found.model, found.accelerator),
        beside=unlabelled_stream.added(recipe),
        unlabelled=len(found.unlabelled.fit) if found.unlabelled is not None else 0,
    )
    refit, later = _refitted(recipe, images)
    rate, slower = learning_rate.from_random(sized, found.model, found.groups)
    chosen = (sized if rate is None else replace(sized, lr=rate)).with_preset()
    workers = recipe.workers
    if workers is None:
        quick = data.is_quick(images.fit, found.config, chosen.augment or "none")
        workers = data.auto_workers(machine.device, machine.threads, quick=quick)
    settled = replace(
        chosen,
        precision=machine.precision,
        device=machine.device,
        threads=machine.threads,
        workers=workers,
        norm=norm,
        recalibrate=recalibration.setting,
        problem=make_objective.problem(recipe, images),
        select_by=make_objective.selected_by(recipe, images),
        label_smoothing=make_objective.smoothing(recipe, images),
        compile=make_objective.compiled(recipe),
        refit=refit,
        unlabelled_ratio=unlabelled_stream.ratio(recipe) if found.unlabelled is not None else None,
        weights=_chosen(recipe.weights, found.weights),
    )
    parts = (
        make_objective.surgery_note(sized, images, machine.processes),
        unlabelled_stream.cut_note(sized, machine.processes),
    )
    return settled, [recalibration.note, why, later, slower, *parts]


def training_loader(part: Part, settled: Recipe, config: DataConfig, accelerator: Accelerator) -> TrainLoader:
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
    )


def steps_of(settled: Recipe, loader: TrainLoader, besides: Besides | None) -> tuple[int, int]:
    """Optimizer steps of an epoch: where the head alone trains, and where more does.

    Images without labels change nothing but the features, so they do not make the head's epochs longer.
    """
    batches = loader.steps_per_pass, besides.steps if besides else loader.steps_per_pass
    alone, more = (-(-each // settled.accumulate) for each in batches)
    return alone, more


def _choosing_loader(part: Part, settled: Recipe, config: DataConfig, accelerator: Accelerator) -> EvaluationLoader:
    """This process's batches of the images that choose the epoch."""
    return data.eval_batches(
        part,
        config=config,
        batch_size=settled.batch,
        workers=settled.workers or 0,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )


def _material(found: Opened, settled: Recipe, loader: TrainLoader, choosing: EvaluationLoader) -> Material:
    return Material(
        found.model, found.groups, settled, found.dataset, loader, choosing, found.accelerator,
        (found.spec.full_name, found.dataset.name), found.code,
    )  # fmt: skip


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
    why = "as --refit on asks" if recipe.refit == "on" else f"for fewer than {FEW_LABELLED} labelled images all count"
    return "on", (
        f"training is done twice, {why}: when the best epoch is known, again up to it, on all {images:,} labelled "
        "images; the estimated time is that of both at the longest"
    )


def _chosen(asked: str, weights: Weights | None) -> str:
    """The name of the weights that `default` came to: the tag in a backbone's name, or the manifest's first."""
    return weights.name if asked == "default" and weights is not None else asked
