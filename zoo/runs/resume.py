"""Resume checks: compare a run's record with the current recipe, data, weights, plan and machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from zoo.base import references
from zoo.errors import RecipeError, RunError
from zoo.models import lookup
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.runs.recipe_file import RecipeFile
from zoo.runs.run_folder import Run
from zoo.training import machine
from zoo.training.loaded import Loaded
from zoo.training.machine import Machine
from zoo.version import __version__

# A resumed run may change these, which do not affect the result.
FREE = ("workers", "checkpoint_every", "checkpoint_keep")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that has changed since a run."""

    what: str  # "recipe: lr", "torch", "threads", …
    before: Any
    now: Any

    def record(self) -> dict[str, Any]:
        """The difference as plain values."""
        return {"what": self.what, "before": self.before, "now": self.now}

    def __str__(self) -> str:
        """Both values in one line."""
        return f"{self.what}: {self.before} then, {self.now} now"


def free_choices(
    this: Run,
    before: RecipeFile,
    asked: Mapping[str, Any],
    backbone: str | None,
    dataset: str | None,
    recipe: Recipe | None,
) -> dict[str, Any]:
    """The changed fields among `FREE`; raises RecipeError, which lists them, if any other choice is given and differs.

    `before` are the run's resolved choices, `asked` those it was started with, and the rest those of now, if given.
    """
    refused: list[Difference] = []
    if backbone is not None and lookup.get(backbone).full_name != before.backbone:
        refused.append(Difference("backbone", before.backbone, backbone))
    if dataset is not None and before.dataset not in (dataset, references.absolute(dataset)):
        refused.append(Difference("dataset", before.dataset, dataset))
    changed: dict[str, Any] = {}
    if recipe is not None:
        for name, old, new in _other_choices(before.recipe, asked, recipe):
            if name in FREE:
                changed[name] = new
            else:
                refused.append(Difference(name, old, new))
    if refused:
        place = shlex.quote(str(this.path))
        raise RecipeError(
            f"{this.path} was started with other choices, and a resumed run keeps its own",
            why="; ".join(map(str, refused)),
            fix=f"to go on with it: zoo adapt --resume {place}; to change something: zoo adapt --recipe {place} …",
        )
    return changed


def _other_choices(before: Recipe, asked: Mapping[str, Any], now: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of the choices that equal neither the requested nor the resolved ones."""
    whole = now.with_preset()
    for entry in fields(Recipe):
        old, new = getattr(before, entry.name), getattr(now, entry.name)
        forms = [_plain(new), _plain(getattr(whole, entry.name))]
        if entry.name in ("weights", "target", "unlabelled") and new is not None:
            forms.append(references.absolute(new))
        if entry.name == "tasks":
            forms.append([str(replace(spec, dataset=references.absolute(spec.dataset))) for spec in now.task_specs])
        if not any(value in (_plain(old), _plain(asked.get(entry.name))) for value in forms):
            yield entry.name, _plain(old), _plain(new)


def refuse_changed(this: Run, record: Mapping[str, Any], loaded: Loaded, plan: Plan) -> None:
    """Raises RunError if data, weights, plan or number of processes have changed since the run started."""
    before, now = record["dataset"]["fingerprint"], loaded.dataset.fingerprint
    if before != now:
        counts = record["dataset"]["counts"]["fit"]["n"], len(loaded.dataset.train)
        raise RunError(
            f"the data of {this.path} changed since it started",
            why=f"fingerprint {before[:12]} became {now[:12]}; training images: {counts[0]}, now {counts[1]}",
            fix="bring the old data back, or start a new run",
        )
    for kind in ("target", "unlabelled"):
        images = loaded.unlabelled.fingerprint if loaded.unlabelled else None
        if (known := record.get(kind, {}).get("fingerprint")) not in (None, images):
            raise RunError(
                f"the unlabelled images of {this.path} changed since it started",
                why=f"fingerprint {known[:12]} became {images[:12] if images else 'none'}",
                fix="bring the old images back, or start a new run",
            )
    started, found = record["backbone"].get("fingerprint"), loaded.fingerprint
    if started is not None and started != found:
        raise RunError(
            f"the weights that {this.path} started from changed",
            why=f"fingerprint {started[:12]} became {found[:12] if found else 'none'}; "
            f"they are {record['recipe']['weights']} of {record['backbone']['name']}",
            fix="bring the old weights back, or start a new run",
        )
    if Plan.from_record(record["plan"]).phases != plan.phases:
        raise RunError(
            f"this zoo makes another plan from the recipe of {this.path}",
            why=f"zoo {record.get('zoo')} made it, this is {__version__}",
            fix="start a new run",
        )
    processes = record["resolved"].get("processes", 1)
    if processes != loaded.machine.processes:
        raise RunError(
            f"{this.path} was started with {processes} process(es), not {loaded.machine.processes}",
            fix=f"use the same number: zoo adapt --resume {shlex.quote(str(this.path))} --processes {processes}",
        )


def other_environment(record: Mapping[str, Any], here: Machine, *, everything: bool = False) -> list[Difference]:
    """Changes in versions, processor, device and threads; with `everything`, also in what cannot affect the result."""
    now, before = machine.environment(here), record.get("environment", {})
    return [
        Difference(name, before.get(name), value)
        for name, value in now.items()
        if before.get(name) != value and (everything or name not in ("platform", "cores"))
    ]


def _plain(value: Any) -> Any:
    """A value as a record has it."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [item if isinstance(item, str) else item.record() for item in value]
    return value
