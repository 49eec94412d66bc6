"""Prepare a run, from names to a plan ready for training: check, load, decide, assemble, plan, price."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from zoo import data
from zoo.events import Listener, Progress
from zoo.recipes.plan import Plan
from zoo.recipes.planner import asked_phases, require_body
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_several
from zoo.runs.load import load
from zoo.runs.recipe_file import RESOLVED
from zoo.training import make_objective, optim, unlabelled_stream
from zoo.training.autotune.decide import decide
from zoo.training.autotune.learning_rate import RangeTest, find_rate
from zoo.training.autotune.price import Known, price
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.loaded import Loaded, Work
from zoo.training.losses.objective import with_objective
from zoo.training.memory import explained_memory
from zoo.training.norms.synchronised import synchronised


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything settled, nothing trained yet."""

    loaded: Loaded
    work: Work
    plan: Plan
    caches: dict[str, Option]  # by phase name, how it trains from cached features
    range_test: RangeTest | None

    def resolved(self) -> dict[str, Any]:
        """The automatic choices, for the record."""
        settled = self.work.settled
        chosen = {name: getattr(settled, name) for name in RESOLVED}
        return {**self.loaded.machine.record(), "batch_size": settled.batch_size, **chosen}


def prepare(backbone: str, dataset: str, recipe: Recipe, emit: Listener, *, cost: Known | None = None) -> Prepared:
    """Open the data, build the model, and make the plan; a resumed run passes its earlier `cost` estimate."""
    check(recipe)
    loaded = load(backbone, dataset, recipe, emit)  # refuses a recipe that does not fit the images, before the model
    settled, notes = decide(loaded)
    work = assemble(settled, loaded)
    work, range_test = _with_rate(work, loaded)
    plan = loaded.planned(work.settled, work.steps, work.settled.norm, notes)
    plan = with_objective(plan, work.objective, work.settled.batch)
    plan, settled, caches = price(plan, loaded, work, cost)
    return Prepared(loaded, replace(work, settled=settled), plan, caches, range_test)


def check(recipe: Recipe) -> None:
    """Check a recipe as far as that needs no data or network.

    Raises RecipeError if the method is still open, a phase or optimizer does not exist, or a choice needs a body that
    does not train.
    """
    refuse_several(recipe)
    phases = recipe.expand()
    asked_phases(recipe.cache, phases, "cache features for")
    asked_phases(recipe.compile, phases, "compile")
    require_body(recipe, trained=any(phase.train_from not in ("head", "head-0") for phase in phases))
    optim.require(recipe.optimizer)


def assemble(settled: Recipe, loaded: Loaded) -> Work:
    """Make the loaders and the objective; raises RecipeError if a method lacks a layer or enough images."""
    images, config, accelerator = loaded.dataset, loaded.config, loaded.accelerator
    shared: dict[str, Any] = {
        "config": config,
        "batch_size": settled.batch,
        "workers": settled.workers or 0,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "device": accelerator.device,
    }
    stream = None
    if loaded.unlabelled is not None:
        unlabelled_stream.require_enough(
            settled, len(images.train), len(loaded.unlabelled.train), loaded.machine.processes
        )
        stream = unlabelled_stream.make_stream(loaded.unlabelled, len(images.train), settled, config, accelerator)
    loader = data.train_loader(
        images.train,
        augment=settled.augment or "none",
        seed=settled.seed,
        balance=settled.balance,
        temperature=settled.task_temperature,
        **shared,
    )
    val_loader = data.eval_batches(images.val, **shared)
    return Work(settled, loader, val_loader, make_objective.objective(settled, loaded, stream), stream)


def _with_rate(work: Work, loaded: Loaded) -> tuple[Work, RangeTest | None]:
    """The work with the learning rate from a range test, if lr is "auto"."""
    settled = work.settled
    if settled.lr != "auto":
        return work, None
    loaded.emit(Progress("range test for the learning rate", 0, 0))
    trial = loaded.planned(settled, work.steps, settled.norm).phases[-1]
    shared = synchronised(loaded.model, loaded.groups, trial, loaded.accelerator)
    with explained_memory(settled.batch, loaded.config.input_size[-1]), shared:
        found = find_rate(loaded, work, trial)
    return replace(work, settled=replace(settled, lr=found.chosen)), found
