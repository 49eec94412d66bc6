"""Automatic choice of an alignment method: train with each, and take the best by a score without target labels."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.base import files
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import Listener, Note
from zoo.recipes.methods import asked
from zoo.recipes.plan import Plan
from zoo.recipes.planner import require_body
from zoo.recipes.recipe import Recipe
from zoo.runs import lock, train
from zoo.runs.finish import write_up
from zoo.runs.prepare import assemble, prepare
from zoo.runs.run_folder import Run
from zoo.training import machine
from zoo.training.loaded import Loaded, Work
from zoo.training.selection import rises
from zoo.training.validators import VALIDATORS

FOLDER = "tried"  # in the run's folder: the runs of the methods that were not chosen


def start(backbone: str, dataset: str, recipe: Recipe, out: Path | None, emit: Listener) -> Run:
    """Adapt with each method of `recipe.align` in turn, and make the run of the best one the run in `out`.

    Methods are compared by `recipe.select_by`, `information` by default: of the finished model on unlabelled target
    images, or of the best epoch on source images. Methods that do not fit the network are left out before any trains.
    """
    methods = asked(recipe.align)
    place = _place(out, f"{backbone.rpartition('/')[2]}-auto")
    by = "information" if recipe.select_by == "auto" else recipe.select_by
    began = time.monotonic()
    ready = prepare(backbone, dataset, replace(recipe, align="none"), emit)
    unfit = left_out(ready.loaded, ready.work, ready.plan, methods)
    for method, why in unfit.items():
        emit(Note(f"--align {method} is not tried: {why}"))
    runs: dict[str, Run] = {}
    fit = [method for method in methods if method not in unfit]
    if not fit:
        raise RecipeError("no method of --align fits this network", why="; ".join(unfit.values()))
    for method in fit:
        emit(Note(f"trying --align {method}"))
        if runs or method != "none":
            began = time.monotonic()
            ready = prepare(backbone, dataset, replace(recipe, align=method), emit)
        try:  # the folder has the final run's name, which is in its files
            runs[method] = train.begin(ready, place / FOLDER / method / place.name, emit, began)
        except TrainingInterrupted as error:
            why = (
                f"that goes on with {method} alone. What is finished is in {place / FOLDER}; several are tried in one "
                "go, or again in another folder"
            )
            raise TrainingInterrupted(error.what, why=why, fix=error.fix, signal_number=error.signal_number) from error
    records = {method: run.record for method, run in runs.items()}
    best = (max if rises(by) else min)(records, key=lambda method: score(records[method], by))
    rows = [_row(method, records[method], by, method == best) for method in records]
    emit(Note(f"--align {best} is chosen: it has the best {by} of all methods that were tried"))
    this = Run(place)
    if machine.process_index() == 0:
        record = records[best]
        record["target"] |= {"tried": {"by": by, "rows": rows, "left_out": unfit}}
        _move_up(runs[best].path, place)
        write_up(this, ready.loaded.dataset.test, record)
    ready.loaded.accelerator.wait_for_everyone()
    return this


def _place(out: Path | None, name: str) -> Path:
    """The run's folder, which must not exist; the same in all processes."""
    if out is not None:
        lock.refuse_used(out)
        return out.resolve()
    for number in range(1, 10_000):
        place = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not place.exists():
            return place.resolve()
    raise RunError(f"there are thousands of runs named {name}", fix="choose a folder with --out")


def left_out(loaded: Loaded, work: Work, plan: Plan, methods: Sequence[str]) -> dict[str, str]:
    """The methods that do not fit a prepared network, with the reasons."""
    unfit = {}
    for method in methods:
        recipe = replace(work.settled, align=method)
        try:
            assemble(recipe, loaded)
            require_body(recipe, trained=any(phase.trains_body for phase in plan.phases))
        except RecipeError as error:
            unfit[method] = error.why or error.what
    return unfit


def score(record: Mapping[str, Any], by: str) -> float:
    """The score of a finished run's model on target images, or of its best epoch on source images."""
    return float((record["target"]["validators"] if by in VALIDATORS else record["best"])[by])


def _row(method: str, record: Mapping[str, Any], by: str, chosen: bool) -> dict[str, Any]:
    target = record["target"]
    return {
        "align": method,
        "score": score(record, by),
        "validators": target["validators"],
        "source": record["result"]["accuracy"],
        "accuracy": target["result"]["accuracy"] if target.get("result") else None,
        "chosen": chosen,
        "run": None if chosen else f"{FOLDER}/{method}",
    }


def _move_up(path: Path, place: Path) -> None:
    """Move the contents of a finished run's folder to another, the record last, so that a partial one is not a run."""
    with files.friendly_os_errors(place):
        for name in sorted(os.listdir(path), key=lambda name: name == "run.json"):
            os.replace(path / name, place / name)
        shutil.rmtree(path.parent)
