"""Members of a stack or soup: finished runs with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.recipes.recipe import Recipe
from zoo.runs import run_folder as run
from zoo.runs.recipe_file import recipe_of_run
from zoo.runs.run_folder import Run
from zoo.runs.stacked.combine import KINDS

PLAIN, SOUP = "plain mean", "greedy soup"  # in a stack's table
RESERVED = (*KINDS, PLAIN, SOUP)
SHOWN = 5  # classes that a message lists


@dataclass(frozen=True, slots=True)
class StackMember:
    """One finished run."""

    name: str  # unique among the members
    run: Run
    record: Mapping[str, Any]  # of the run
    recipe: Recipe  # with its automatic choices resolved
    dataset: str  # what it was adapted to
    order: tuple[int, ...]  # for each class in the shared order, its index in the run's own head
    named: str = ""  # the run as recorded when the stack began; empty: where it is

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the shared order."""
        own = self.record["dataset"]["classes"]
        return tuple(own[place] for place in self.order)

    @property
    def refitted(self) -> bool:
        """Whether it was also trained on the validation images."""
        return bool(self.record.get("refit"))

    @property
    def started_here(self) -> bool:
        """Whether its initial weights may have seen the images: from a run on the same data, or a file now missing."""
        place = Path(self.recipe.weights)
        if not place.exists():
            return place.is_absolute()
        try:
            return bool(run.read_record(place if place.is_dir() else place.parent)["dataset"]["ref"] == self.dataset)
        except (RunError, KeyError, TypeError):
            return False

    def facts(self) -> dict[str, Any]:
        """The member in the stack's record."""
        record = self.record
        return {
            "name": self.name,
            "run": self.named or str(self.run.path),
            "id": record.get("id"),
            "backbone": record["backbone"]["name"],
            "accuracy": record["result"]["accuracy"],
        }


def members(references: Sequence[str | Path | Run]) -> list[StackMember]:
    """The members, in the first one's class order.

    Raises RunError if there are fewer than two, one is not a finished run of one model or is named twice, or their
    classes differ.
    """
    runs = [run.named(reference) for reference in references]
    if len(runs) < 2:
        raise RunError("there is nothing to combine", why=f"{len(runs)} run was named", fix="name two or more")
    records = [each.finished_record() for each in runs]
    for each, record in zip(runs, records, strict=True):
        if record.get("kind") == "stack":
            raise RunError(f"{each.path} is a stack, not a run of one model", fix="name its members")
        if record.get("kind") == "multitask" or record["dataset"].get("tasks"):
            raise RunError(
                f"{each.path} does not give each image one class",
                why="its images have several labels or tasks",
                fix="name runs of one class per image",
            )
    seen: dict[str, Run] = {}
    for each, record in zip(runs, records, strict=True):
        own = str(record.get("id") or each.path.resolve())
        if own in seen:
            raise RunError(f"{each.path} and {seen[own].path} are the same run", fix="name each run once")
        seen[own] = each
    classes = list(records[0]["dataset"]["classes"])
    stacked = []
    for each, record, name in zip(runs, records, _names(runs), strict=True):
        read = recipe_of_run(record)
        assert read.dataset is not None
        order = _order(classes, runs[0], record["dataset"]["classes"], each)
        stacked.append(StackMember(name, each, record, read.recipe, read.dataset, order))
    return stacked


def again_members(record: Mapping[str, Any], places: Sequence[Path]) -> list[StackMember]:
    """The members of a stack, read from its own folder and named as in its record."""
    entries = record["stack"]["members"]
    return [replace(member, name=entry["name"], named=str(entry.get("run") or ""))
            for member, entry in zip(members(places), entries, strict=True)]  # fmt: skip


def _names(runs: Sequence[Run]) -> list[str]:
    """Each run's folder name, numbered if another row of a stack's table has it too."""
    names: list[str] = []
    for each in runs:
        name, number = each.path.resolve().name, 1
        while name in names or name in RESERVED:
            number += 1
            name = f"{each.path.resolve().name}-{number}"
        names.append(name)
    return names


def _order(classes: Sequence[str], first: Run, own: Sequence[str], of: Run) -> tuple[int, ...]:
    differences = {"lacks": sorted(set(classes) - set(own)), "also has": sorted(set(own) - set(classes))}
    if any(differences.values()):
        raise RunError(
            f"{first.path} and {of.path} do not have the same classes",
            why="; ".join(f"{of.path} {verb} {_some(names)}" for verb, names in differences.items() if names),
            fix="adapt them to the same data set",
        )
    return tuple(own.index(name) for name in classes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
