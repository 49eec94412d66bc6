"""Ranking of backbones by how well they should transfer to a data set, before any training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.data import Dataset
from zoo.errors import DataError, RecipeError, ZooError
from zoo.events import Event, Listener, Note, Progress
from zoo.recipes.budget import Budget, FittedBudget, fitted
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_several
from zoo.runs.prepare import prepare
from zoo.studies import backbone_list
from zoo.studies.backbone_list import Entrant, LeftOut
from zoo.studies.rank.feature_store import frozen_features
from zoo.studies.rank.order import Place, places
from zoo.studies.rank.sample import LEAST, sampled
from zoo.studies.rank.scores import h_score, log_me, neighbours
from zoo.training.probe import Probe, cross_validated

IMAGES = 2000  # at most, by default
NO_TIME = "there was no time left to rank it"


@dataclass(frozen=True, slots=True)
class Judged:
    """One backbone's scores, and what adapting it takes."""

    entrant: Entrant
    params: int  # with the new head
    width: int  # features of an image
    log_me: float  # nats per image
    h_score: float
    knn: float  # accuracy, 0 to 1
    probe: Probe
    plan: Plan  # of adapting it by the recipe, with its estimate
    adapting: FittedBudget  # the same within the budget
    seconds: float  # that computing the scores took


@dataclass(frozen=True, slots=True)
class Ranking:
    """Backbones in order, best first, by what a linear probe on their frozen features reaches in cross-validation."""

    dataset: str  # name
    ref: str  # as given by the user
    images: int  # that scores are computed on: train and validation images, never test images
    classes: int
    recipe: Recipe  # for the time and memory of adapting
    budget: Budget | None
    judged: tuple[Judged, ...]
    places: tuple[Place, ...]  # of each
    left_out: tuple[LeftOut, ...]
    seconds: float  # in all

    def record(self) -> dict[str, Any]:
        """The ranking as plain values, the form of `zoo rank --json`."""
        return {
            "dataset": self.dataset,
            "images": self.images,
            "classes": self.classes,
            "strategy": self.recipe.strategy,
            "budget": str(self.budget) if self.budget else None,
            "ranking": [self._row(number) for number in range(len(self.judged))],
            "left_out": [each.record() for each in self.left_out],
            "seconds": round(self.seconds, 2),
        }

    def __str__(self) -> str:
        """The order as a plain table."""
        lines = [f"{self.dataset}: {self.images} images, {self.classes} classes"]
        for row in self.record()["ranking"]:
            low, high = row["interval"]
            lines.append(f"{row['rank']:>3}  {row['backbone']:<28} {row['accuracy']:.3f} ({low:.3f} to {high:.3f})  "
                         f"best with probability {row['best']:.2f}")  # fmt: skip
        return "\n".join([*lines, *(f"left out: {each.backbone}: {each.why}" for each in self.left_out)])

    def _row(self, number: int) -> dict[str, Any]:
        one, place = self.judged[number], self.places[number]
        return {
            "rank": number + 1,
            "backbone": one.entrant.backbone,
            "weights": one.entrant.weights,
            "accuracy": one.probe.accuracy,
            "interval": list(place.interval),
            "best": place.best,
            "ranks": list(place.ranks),
            "probe_loss": one.probe.loss,
            "probe_strength": one.probe.strength,
            "folds": one.probe.folds,
            **{key: getattr(one, key) for key in ("log_me", "h_score", "knn")},
            "features": one.width,
            "params": one.params,
            "adapting": {
                **{key: getattr(one.adapting, key) for key in ("epochs", "steps", "seconds", "memory_bytes")},
                "fits": one.adapting.fault is None,
            },
            "seconds": round(one.seconds, 2),
        }


def ranked(
    dataset: str,
    names: Sequence[str],
    recipe: Recipe,
    *,
    images: int,
    budget: Budget | None,
    emit: Listener,
    within: float | None = None,
) -> Ranking:
    """Rank backbones: see `zoo.api.rank`.

    After `within` seconds the remaining ones are left out, if one so far fits into what is left of the budget.
    """
    began = time.monotonic()
    _refuse(recipe, images)
    left_out: list[LeftOut] = []
    if names:
        field = backbone_list.named(names)
    else:
        emit(Progress("finding the weights on this machine", 0, 0))
        field, left_out = backbone_list.every()
    if not field:
        why = "no weights of any are on this machine"
        raise RecipeError("there is no backbone to rank", why=why, fix="name some: zoo rank MODEL …")
    emit = _once(emit)
    judged: list[Judged] = []
    opened: Dataset | None = None
    count = 0
    for entrant in field:
        if within is not None and _settled(judged, recipe, budget, within, time.monotonic() - began):
            left_out.append(LeftOut(str(entrant), NO_TIME, "allow more with --budget"))
            emit(Note(f"{entrant} is left out: {NO_TIME}"))
            continue
        try:
            one, opened, count = _judge(entrant, dataset, recipe, images, budget, emit)
            judged.append(one)
        except DataError:
            raise
        except ZooError as error:
            if len(field) == 1:
                raise
            emit(Note(f"{entrant} is left out: {error.what}"))
            left_out.append(LeftOut(str(entrant), f"{error.what}: {error.why}" if error.why else error.what, error.fix))
    if opened is None:
        why = "; ".join(f"{each.backbone}: {each.why}" for each in left_out)
        raise RecipeError("no backbone could be ranked", why=why)
    judged.sort(key=lambda one: (-one.probe.accuracy, one.probe.loss, one.entrant.backbone))
    return Ranking(
        dataset=opened.name,
        ref=dataset,
        images=count,
        classes=len(opened.classes),
        recipe=recipe,
        budget=budget,
        judged=tuple(judged),
        places=tuple(places([one.probe.right for one in judged])),
        left_out=tuple(left_out),
        seconds=time.monotonic() - began,
    )


def _settled(judged: Sequence[Judged], recipe: Recipe, budget: Budget | None, within: float, spent: float) -> bool:
    """Whether the time for ranking is over, and a backbone fits into the rest of the budget, or nothing is left."""
    if spent < within or not judged:
        return False
    if budget is None or budget.seconds is None or spent >= budget.seconds:
        return True
    left = Budget(seconds=budget.seconds - spent)
    return any(fitted(one.plan, replace(recipe, weights=one.entrant.weights), left).fault is None for one in judged)


def _judge(
    entrant: Entrant, dataset: str, recipe: Recipe, images: int, budget: Budget | None, emit: Listener
) -> tuple[Judged, Dataset, int]:
    began = time.monotonic()
    ready = prepare(entrant.backbone, dataset, replace(recipe, weights=entrant.weights), emit)
    ready.loaded.dataset.require_classes("zoo rank")
    parts, notes = sampled(ready.loaded.dataset, images, seed=ready.loaded.recipe.cut_seed)
    for note in notes:
        emit(Note(note))
    features, labels = frozen_features(ready.loaded, parts, ready.work.settled.workers or 0, emit)
    enough = np.bincount(labels)[labels] >= LEAST  # unreadable images may leave a class with one
    features, labels = features[enough], labels[enough]
    stage, fits = f"linear probe of {ready.loaded.spec.full_name}", itertools.count()
    probe = cross_validated(
        features, labels, seed=recipe.seed, uneven=True, check=lambda: emit(Progress(stage, next(fits), 0))
    )
    emit(Progress(f"scores of {ready.loaded.spec.full_name}", 0, 0))
    one = Judged(
        entrant=entrant,
        params=sum(parameter.numel() for parameter in ready.loaded.model.parameters()),
        width=features.shape[1],
        log_me=log_me(features, labels),
        h_score=h_score(features, labels),
        knn=neighbours(features, labels),
        probe=probe,
        plan=ready.plan,
        adapting=fitted(ready.plan, ready.loaded.recipe, budget),
        seconds=time.monotonic() - began,
    )
    return one, ready.loaded.dataset, len(labels)


def _once(emit: Listener) -> Listener:
    """A listener that gets each note once, though it holds for every backbone."""
    texts: set[str] = set()

    def listen(event: Event) -> None:
        if not isinstance(event, Note) or event.text not in texts:
            emit(event)
        if isinstance(event, Note):
            texts.add(event.text)

    return listen


def _refuse(recipe: Recipe, images: int) -> None:
    refuse_several(recipe)
    if recipe.strategy == "scratch":
        raise RecipeError(
            "backbones are ranked by their pretrained features, and the strategy scratch uses none",
            fix="choose another strategy, or compare them by training: zoo compare MODEL … --strategies scratch",
        )
    if recipe.weights != "default":
        raise RecipeError("each backbone has weights of its own", fix="name them with it: MODEL=WEIGHTS")
    if images < 10:
        raise RecipeError(f"{images} image(s) are too few to rank by", fix="look at 10 or more")
