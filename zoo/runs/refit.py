"""Train once more on all labelled images, when those that chose the best epoch have done so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from zoo.recipes.plan import Plan
from zoo.runs.prepare import Prepared, steps_of, training_loader
from zoo.training.frozen_cache.phase_data import Option, Sources
from zoo.training.loop import Job
from zoo.training.make_objective import objective
from zoo.training.state.position import Position
from zoo.training.state.session import Session
from zoo.training.unlabelled_stream import streamed

_PREFIX = "refit"  # of its phases' names


def start_of(ready: Prepared) -> dict[str, torch.Tensor] | None:
    """The weights to start from once more; None where there is no second training. To be taken before the first."""
    if ready.settled.refit != "on":
        return None
    return {name: tensor.detach().clone() for name, tensor in ready.model.state_dict().items()}


def session_after(first: Session) -> Session:
    """Where the second training stands: its own states, in the same folder and log."""
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
    """The second training: the same phases up to the best epoch, on the images that trained and those that chose."""
    best = first.best
    assert best is not None
    ready.model.load_state_dict(start)
    images = ready.dataset.fit.joined(ready.dataset.choose)
    dataset = replace(ready.dataset, fit=images)
    besides = ready.besides
    if besides is not None:
        besides = streamed(besides.images, len(images), ready.settled, ready.config, ready.accelerator)
    loader = training_loader(images, ready.settled, ready.config, ready.accelerator)
    steps = steps_of(ready.settled, loader, besides)
    names = [phase.name for phase in ready.plan.phases]
    needed = ready.plan.phases[: names.index(best["phase"]) + 1]
    phases = tuple(
        replace(phase, name=_named(phase.name), steps_per_epoch=steps[phase.trains_body]) for phase in needed
    )
    epochs = {_named(phase.name): first.done[phase.name] for phase in needed[:-1]}
    epochs[phases[-1].name] = best["epoch"]
    return replace(
        job,
        plan=Plan(ready.plan.backbone, ready.plan.dataset, phases),
        recipe=replace(ready.settled, patience=None),
        sources=Sources(
            replace(ready.material, dataset=dataset, loader=loader),
            {_named(name): _cut(option, epochs.get(_named(name), 1)) for name, option in ready.caches.items()},
            besides,
        ),
        objective=objective(
            ready.settled, images, besides, ready.model, ready.groups[-1], ready.config, ready.accelerator
        ),
        sample_ids=images.ids,
        epochs=epochs,
        judged=False,
    )


def _cut(option: Option, epochs: int) -> Option:
    """No more views are kept than there are epochs to take them."""
    return replace(option, plan=replace(option.plan, views=min(option.plan.views, max(1, epochs))))


def record(ready: Prepared, position: Position) -> dict[str, Any]:
    """What run.json says of a second training."""
    epochs = {name.removeprefix(f"{_PREFIX} "): count for name, count in position.done.items()}
    return {"images": len(ready.dataset.fit) + len(ready.dataset.choose), "epochs": epochs}


def _named(phase: str) -> str:
    return f"{_PREFIX} {phase}"
