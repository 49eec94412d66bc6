"""Refit: a second training on train and validation images together, once the best epoch is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from zoo.data import Dataset
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import Prepared, assemble
from zoo.training.frozen_cache.phase_data import Option, open_source
from zoo.training.loop import Job
from zoo.training.state.position import Position
from zoo.training.state.session import Session

_PREFIX = "refit"  # of its phases' names


def start_of(settled: Recipe, model: nn.Module) -> dict[str, torch.Tensor] | None:
    """A copy of the initial weights, taken before the first training; None if there is no second."""
    if settled.refit != "on":
        return None
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def session_after(first: Session) -> Session:
    """The session of the second training: its own states, in the same folder and log."""
    return Session(
        first.folder,
        first.metrics,
        first.states / _PREFIX,
        first.accelerator,
        first.emit,
        every=first.every,
        keep=first.keep,
        start=replace(first.position.once_more(), seconds=first.seconds),
    )


def job_after(job: Job, first: Position, ready: Prepared, start: Mapping[str, torch.Tensor]) -> Job:
    """The second training: the same phases up to the best epoch, on train and validation images."""
    best = first.best
    assert best is not None
    ready.loaded.model.load_state_dict(start)
    images = ready.loaded.dataset.train.joined(ready.loaded.dataset.val)
    loaded = replace(ready.loaded, dataset=replace(ready.loaded.dataset, train=images))
    work = replace(assemble(ready.work.settled, loaded), val_loader=ready.work.val_loader)
    names = [phase.name for phase in ready.plan.phases]
    needed = ready.plan.phases[: names.index(best["phase"]) + 1]
    phases = tuple(
        replace(phase, name=_named(phase.name), steps_per_epoch=work.steps[phase.trains_body]) for phase in needed
    )
    epochs = {_named(phase.name): first.done[phase.name] for phase in needed[:-1]}
    epochs[phases[-1].name] = best["epoch"]
    caches = {_named(name): _cut(option, epochs.get(_named(name), 1)) for name, option in ready.caches.items()}
    return replace(
        job,
        plan=Plan(ready.plan.backbone, ready.plan.dataset, phases),
        recipe=replace(work.settled, patience=None),
        source=partial(open_source, loaded, work, caches),
        objective=work.objective,
        sample_ids=images.ids,
        epochs=epochs,
        judged=False,
    )


def _cut(option: Option, epochs: int) -> Option:
    """The option with at most one cached view per epoch."""
    return replace(option, plan=replace(option.plan, views=min(option.plan.views, max(1, epochs))))


def record(dataset: Dataset, position: Position) -> dict[str, Any]:
    """`refit` in run.json."""
    epochs = {name.removeprefix(f"{_PREFIX} "): count for name, count in position.done.items()}
    return {"images": len(dataset.train) + len(dataset.val), "epochs": epochs}


def _named(phase: str) -> str:
    return f"{_PREFIX} {phase}"
