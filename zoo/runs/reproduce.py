"""Reproduce a run from its record, and compare the results."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from zoo.base.references import HUB_MODEL, may_be_repo
from zoo.errors import RunError
from zoo.events import Listener, Note
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.runs import lock, publish, resume, train
from zoo.runs import run_folder as run
from zoo.runs.prepare import prepare
from zoo.runs.recipe_file import recipe_of_run, refuse_several
from zoo.runs.resume import Difference
from zoo.runs.run_folder import Run
from zoo.tasks.schema import headline
from zoo.training import machine
from zoo.training.loaded import Loaded


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A reproduced run, compared with the first one."""

    reference: str  # the first run: its folder, or its place on the Hub
    run: Run  # the second
    tensors: int  # in the model
    differing: int  # tensors that are not bit-identical
    max_difference: float | None  # the largest between two weights; None: their shapes differ
    accuracy_before: float | None  # 0 to 1; or the task's main measure, see `zoo.tasks.schema.headline`
    accuracy_now: float | None  # the same measure of the second run
    differences: tuple[Difference, ...]  # in data, initial weights, plan, versions, machine

    @property
    def identical(self) -> bool:
        """Whether all weights are bit-identical."""
        return self.differing == 0

    def record(self) -> dict[str, Any]:
        """The reproduction as `zoo reproduce --json` prints it."""
        return {
            "reference": self.reference,
            "run": str(self.run.path),
            "identical": self.identical,
            "max_difference": self.max_difference,
            "tensors": {"n": self.tensors, "differing": self.differing},
            "accuracy": {"before": self.accuracy_before, "now": self.accuracy_now},
            "differences": [difference.record() for difference in self.differences],
        }


def reproduce(
    reference: str | Path | Run, dataset: str | None, weights: str | None, out: Path | None, emit: Listener
) -> Reproduction:
    """Reproduce a run: see `zoo.api.reproduce`."""
    began = time.monotonic()
    name, first, record = _first(reference, emit)
    refuse_several(record, name)
    original = recipe_of_run(record)
    data, recipe = _placed(original.recipe, record, dataset, name)
    recipe = recipe if weights is None else replace(recipe, weights=weights)
    assert original.backbone is not None
    if out is not None:
        lock.refuse_used(out)
    ready = prepare(original.backbone, data, _possible_here(recipe, emit), emit)
    differences = _differences(record, ready.loaded, ready.plan)
    for difference in differences:
        emit(Note(f"different from the first run: {difference}"))
    done = train.begin(ready, out, emit, began)
    tensors, differing, largest = _compare(first / "model.safetensors", done.path / "model.safetensors")
    return Reproduction(
        reference=name,
        run=done,
        tensors=tensors,
        differing=differing,
        max_difference=largest,
        accuracy_before=headline(record["result"])[1],
        accuracy_now=headline(done.record["result"])[1],
        differences=differences,
    )


def _first(reference: str | Path | Run, emit: Listener) -> tuple[str, Path, Mapping[str, Any]]:
    """Name, folder and record of the run to reproduce."""
    local = reference if isinstance(reference, Run) else run.find(reference)
    if local is not None:
        return str(local.path), local.path, local.finished_record()
    text = str(reference)
    if text.startswith(HUB_MODEL) or (isinstance(reference, str) and may_be_repo(text)):
        place = text.removeprefix(HUB_MODEL)
        return f"{HUB_MODEL}{place}", *publish.fetch_run(place, emit)
    raise RunError(
        f"{reference} is neither a run nor a model on the Hub",
        fix=f"{run.near(text)}see `zoo runs` for the runs here, or name ORG/NAME",
    )


def _placed(recipe: Recipe, record: Mapping[str, Any], dataset: str | None, name: str) -> tuple[str, Recipe]:
    """The data set, and the recipe with tasks that name it too; raises RunError if it is not known."""
    images = record["dataset"]
    if len(recipe.tasks) > 1 and len(images.get("tasks") or ()) < 2:
        raise RunError(
            f"{name} is one task of a run that trained {len(recipe.tasks)} tasks together",
            why=f"they are: {', '.join(spec.name for spec in recipe.task_specs)}",
            fix="reproduce the run that it was pushed from, or a model of all its tasks",
        )
    if len({spec.dataset for spec in recipe.task_specs}) > 1:
        gone = [str(one.get("name")) for one in images.get("sets") or () if one.get("ref") is None]
        if dataset is not None or gone:
            raise RunError(
                f"{name} was trained on several data sets, and --dataset names one",
                why=f"these were on the machine that published it: {', '.join(gone)}" if gone else "",
                fix=f"train again instead, with a --task for each: zoo adapt {record['backbone']['name']} --task …",
            )
    data = dataset or images.get("ref")
    if data is None:
        raise RunError(
            f"{name} does not say where its images are",
            why=f"they were on the machine that published it; their fingerprint is {images['fingerprint'][:12]}",
            fix="name them: --dataset …",
        )
    if dataset is None:
        return data, recipe
    return data, replace(recipe, tasks=tuple(str(replace(spec, dataset=data)) for spec in recipe.task_specs))


def _possible_here(recipe: Recipe, emit: Listener) -> Recipe:
    """The recipe, with an automatic device if its own is not available."""
    if recipe.device in machine.devices():
        return recipe
    emit(Note(f"there is no {recipe.device} device here; another one gives slightly different weights"))
    return replace(recipe, device="auto", precision="auto", threads=None, workers=None)


def _differences(record: Mapping[str, Any], loaded: Loaded, plan: Plan) -> tuple[Difference, ...]:
    """Inputs that have changed; nothing else can change the weights on a CPU."""
    unlabelled: Mapping[str, Any] = record.get("target") or record.get("unlabelled") or {}
    images = loaded.unlabelled.fingerprint if loaded.unlabelled else None
    pairs = {
        "data": (record["dataset"]["fingerprint"], loaded.dataset.fingerprint),
        "images without labels": (unlabelled.get("fingerprint"), images),
        "weights to start from": (record["backbone"].get("fingerprint"), loaded.fingerprint),
        "plan": (_hash(Plan.from_record(record["plan"])), _hash(plan)),
    }
    changed = [Difference(what, before[:12], now and now[:12])
             for what, (before, now) in pairs.items() if before is not None and before != now]  # fmt: skip
    return (*changed, *resume.other_environment(record, loaded.machine, everything=True))


def _hash(plan: Plan) -> str:
    """A hash of a plan's phases, without the reason for caching, which may quote measured seconds."""
    phases = [{**phase.record(), "cache_reason": None} for phase in plan.phases]
    return hashlib.sha256(json.dumps(phases, sort_keys=True).encode()).hexdigest()


def _compare(first: Path, second: Path) -> tuple[int, int, float | None]:
    """The number of tensors, of different ones, and the largest difference; None if shapes differ."""
    before, now = load_file(first), load_file(second)
    names = before.keys() | now.keys()
    if before.keys() != now.keys() or any(before[name].shape != now[name].shape for name in names):
        same = [name for name in before.keys() & now.keys() if before[name].shape == now[name].shape]
        return len(names), len(names) - sum(bool((before[name] == now[name]).all()) for name in same), None
    largest = {name: float((before[name].double() - now[name].double()).abs().max()) for name in names}
    return len(names), sum(value != 0.0 for value in largest.values()), max(largest.values(), default=0.0)
