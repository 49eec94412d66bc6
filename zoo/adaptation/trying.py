"""Several ways to adapt to a domain tried, and the best taken, without the domain's labels; doing nothing is one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo import run
from zoo.adaptation import execute, folder
from zoo.adaptation.finish import write_up
from zoo.adaptation.prepare import Prepared, prepare
from zoo.engine import machine as machines
from zoo.engine.choosing import RISING
from zoo.engine.events import Listener, Note
from zoo.engine.recalibration import tracking_norms
from zoo.engine.validators import VALIDATORS
from zoo.errors import RecipeError, RunError
from zoo.recipe import Recipe
from zoo.run import Run

TRIED = ("none", "adabn", "mcc", "dann", "daan")  # quick ones, and one of each kind
_ON_SOURCE = ("accuracy", "loss")  # of the best epoch, on labelled images: told without looking at the target
FOLDER = "tried"  # in the run's own: the runs of the methods that were not taken


def start(backbone: str, dataset: str, recipe: Recipe, out: Path | None, emit: Listener) -> Run:
    """Adapt with each method in turn, and make the run of the best one the run.

    What a method is worth is told by what `recipe.select_by` says of its finished model on target images, without
    labels, or of its best epoch on the source's choosing images; by `information` where nothing was chosen. AdaBN is
    left out where the network has no norm statistics.

    Args:
        backbone: Its name.
        dataset: The labelled images.
        recipe: The choices, with `align` left to be found.
        out: The folder; None: a new one under `runs/`.
        emit: Told about progress.

    Raises:
        RecipeError: `recipe.select_by` cannot compare methods.
    """
    place = _place(out, f"{backbone.rpartition('/')[2]}-auto")
    by = "information" if recipe.select_by == "auto" else recipe.select_by
    if by not in (*VALIDATORS, *_ON_SOURCE):
        raise RecipeError(
            f"--select-by {by} cannot choose a method",
            fix=f"choose by {', '.join((*VALIDATORS, *_ON_SOURCE))}",
        )
    found: dict[str, Run] = {}
    ready: Prepared | None = None
    for method in TRIED:
        if method == "adabn" and ready is not None and not tracking_norms(ready.model):
            emit(Note("--align adabn is not tried: the network has no norms that keep statistics"))
            continue
        emit(Note(f"trying --align {method}"))
        began = time.monotonic()
        ready = prepare(backbone, dataset, replace(recipe, align=method), emit)
        # Named as the run will be: its name is in its files.
        found[method] = execute.begin(ready, place / FOLDER / method / place.name, emit, began)
    assert ready is not None
    records = {method: each.record for method, each in found.items()}
    best = max(found, key=lambda method: _merit(records[method], by))
    rows = [_row(method, records[method], by, method == best) for method in found]
    emit(Note(f"--align {best} is taken: of all that were tried, {by} speaks for it most"))
    this = Run(place)
    if machines.process_index() == 0:
        record = records[best]
        record["target"] |= {"tried": {"by": by, "rows": rows}}
        _move_up(found[best].path, place)
        write_up(this, ready.dataset.report, record)
    ready.accelerator.wait_for_everyone()
    return this


def _place(out: Path | None, name: str) -> Path:
    """The run's folder: it must not be one already, and all processes must mean the same."""
    if out is not None:
        folder.refuse_used(out)
        return out.resolve()
    for number in range(1, 10_000):
        place = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not place.exists():
            return place.resolve()
    raise RunError(f"there are thousands of runs named {name}", fix="choose a folder with --out")


def _score(record: Mapping[str, Any], by: str) -> float:
    return float(record["best"][by] if by in _ON_SOURCE else record["target"]["validators"][by])


def _merit(record: Mapping[str, Any], by: str) -> float:
    return _score(record, by) if by in RISING else -_score(record, by)


def _row(method: str, record: Mapping[str, Any], by: str, chosen: bool) -> dict[str, Any]:
    target = record["target"]
    return {
        "align": method,
        "score": _score(record, by),
        "validators": target["validators"],
        "source": record["result"]["accuracy"],
        "accuracy": target["result"]["accuracy"] if target.get("result") else None,
        "chosen": chosen,
        "run": None if chosen else f"{FOLDER}/{method}",
    }


def _move_up(path: Path, place: Path) -> None:
    """Make a finished run's folder the contents of another; its record comes last, so that no half of it is a run."""
    with run.friendly_os_errors(place):
        for name in sorted(os.listdir(path), key=lambda name: name == "run.json"):
            os.replace(path / name, place / name)
        shutil.rmtree(path.parent)
