"""zoo, through its Python interface and the events that it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.sides.shared import right
from benchmarks.stopwatch import Stopwatch
from zoo import Recipe, api
from zoo.events import EpochDone, Event, PhaseStarted, PlanReady, Progress, StepDone
from zoo.models import preprocessing
from zoo.recipes.plan import PhasePlan
from zoo.runs import train as execute
from zoo.tasks.outputs import Outputs
from zoo.training import loop
from zoo.training.frozen_cache.phase_data import Source
from zoo.training.loop import Job
from zoo.training.state.session import Session

MEASURING = "measuring the saved model"  # zoo's name of the stage after training
OPENING = "opening what a phase trains on"  # ours, of what comes before the first phase and has no name


def run(job: Mapping[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Adapt once. With `curve` every epoch's model is scored on the reported images, off the clock."""
    events = _Events(watch)
    if job["curve"]:
        _score_epochs(Path(job["data"]) / "test", job["image_size"], events)
    watch.mark("imported")
    recipe = Recipe(weights=job["weights"], image_size=job["image_size"], seed=job["seed"], **job["choices"])
    finished = api.adapt(job["backbone"], job["data"], recipe, out=job["out"], on_event=events)
    record = finished.finished_record()
    events.close()
    counts = record["dataset"]["counts"]
    return {
        "accuracy": record["result"]["accuracy"],
        "n": record["result"]["n"],
        "trained_on": counts["fit"]["n"],
        "chosen_on": counts["choose"]["n"],
        "stages": events.stages,
        "epoch_seconds": events.epoch_seconds,
        "cached": record["resolved"]["cache"],
    }


def wrap_sources(wrap: Callable[[Source, PhasePlan], Source]) -> None:
    """Put something around what every phase of this process trains on."""
    train = loop.train

    def wrapped(job: Job, session: Session, *rest: Any) -> None:
        train(replace(job, source=lambda phase, session: wrap(job.source(phase, session), phase)), session, *rest)

    execute.train = wrapped  # type: ignore[assignment, attr-defined]  # the name by which it is called there


class _Events:
    """How long each stage took, and where training begins and ends."""

    def __init__(self, watch: Stopwatch) -> None:
        self.stages: dict[str, float] = {}
        self.epoch_seconds: list[float] = []
        self.score: Callable[[], float] | None = None  # of the epoch's model
        self._watch = watch
        self._stage, self._since = "", 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(stage=stage):
                self._begin(stage)
                if stage == MEASURING and "trained" not in self._watch.marks:
                    self._watch.mark("trained")
            case PlanReady():
                self._begin(OPENING)
                self._watch.mark("training")
            case PhaseStarted() | StepDone():
                self._begin("training")  # a phase makes its activations first
            case EpochDone(seconds=seconds, best=best):
                self.epoch_seconds.append(seconds)
                if self.score is not None:
                    with self._watch.paused():
                        accuracy = self.score()
                    self._watch.point(accuracy, best=best)

    def close(self) -> None:
        self._begin("")

    def _begin(self, stage: str) -> None:
        now = self._watch.now()
        if stage != self._stage:
            if self._stage:
                self.stages[self._stage] = round(self.stages.get(self._stage, 0.0) + now - self._since, 4)
            self._stage, self._since = stage, now


def _score_epochs(folder: Path, side: int, events: _Events) -> None:
    """Score each epoch's model on the reported images as well; the loop itself never looks at them."""

    def wrap(source: Source, _phase: PhasePlan) -> Source:
        def evaluate(candidate: nn.Module) -> Outputs:
            events.score = partial(_accuracy, candidate, folder, side)
            return source.evaluate(candidate)

        return replace(source, evaluate=evaluate)

    wrap_sources(wrap)


def _accuracy(model: nn.Module, folder: Path, side: int) -> float:
    """From the files, not through zoo's loaders: their caches are what is being measured."""
    config = preprocessing.data_config(model, side)
    images = ImageFolder(str(folder), create_transform(**config.as_dict(), is_training=False))
    with torch.random.fork_rng(devices=[]):
        hits, count = right(model, DataLoader(images, batch_size=32))
    return hits / count
