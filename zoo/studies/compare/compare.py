"""Comparison of backbones: plan every member, run them seed by seed, go on if one fails, and summarise."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo import data
from zoo.base import registry
from zoo.data.types import RECORDED
from zoo.errors import RecipeError, RunError, TrainingInterrupted, ZooError
from zoo.events import Listener, Note, Progress
from zoo.models import lookup, preprocessing, saved
from zoo.recipes.budget import Budget
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_several
from zoo.runs.load import data_options
from zoo.runs.lock import held_by, refuse_used, reserved
from zoo.runs.report.comparison_page import write_comparison
from zoo.runs.run_folder import Run
from zoo.studies.compare.comparison_folder import SCHEMA, Comparison
from zoo.studies.compare.grid import Member, members
from zoo.studies.compare.process import carry_out
from zoo.studies.compare.summary import summarise
from zoo.training import machine
from zoo.version import __version__

Work = Callable[[dict[str, Any], Listener], dict[str, Any]]  # does a job of `zoo.studies.compare.child`


def start(
    backbones: Sequence[str],
    dataset: str,
    recipe: Recipe,
    *,
    strategies: Sequence[str],
    seeds: int,
    budget: Budget | None,
    out: Path | None,
    emit: Listener,
    work: Work = carry_out,
) -> Comparison:
    """Start a comparison: see `zoo.api.compare`. `work` does a job, by default in a new process."""
    if machine.process_count() > 1:
        raise RecipeError("a comparison starts a process for each run", fix="start it without accelerate launch")
    if seeds < 1:
        raise RecipeError(f"a comparison needs at least one seed, not {seeds}", fix="use 3 or more")
    refuse_several(recipe)
    found = members(backbones, strategies, recipe)
    ref = dataset
    if dataset not in registry.load().datasets and Path(dataset).exists():
        ref = str(Path(dataset).resolve())
    if out is not None:
        _refuse_another(out)
        refuse_used(out)
    opened = _opened(found[0], ref, emit)
    opened.require_classes("zoo compare")
    path = out.resolve() if out is not None else reserved(f"compare-{opened.name}")
    comparison = Comparison(path)
    record = {
        "schema": SCHEMA,
        "zoo": __version__,
        "kind": "comparison",
        "status": "running",
        "name": path.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "ref": ref,
            "name": opened.name,
            "classes": len(opened.classes),
            "counts": {RECORDED[role]: len(part) for role, part in opened.parts.items()},
            "reported_on": opened.reported_on,
        },
        "strategies": list(strategies),
        "seeds": [recipe.seed + number for number in range(seeds)],
        "budget": str(budget) if budget else None,
        "budget_seconds": budget.seconds if budget else None,
        "recipe": recipe.record(),
        "members": [member.record() for member in found],
        "summary": None,
    }
    with _held(comparison):
        _refuse_another(path)  # another process may have started one while the data set was opened
        comparison.write_record(record)
        return _go(comparison, record, emit, work)


def go_on(path: Path, emit: Listener, work: Work = carry_out) -> Comparison:
    """Resume a comparison: finished runs stay, those that failed or were interrupted are tried again.

    Raises RunError if the folder is not a comparison, or another process works on it.
    """
    comparison = Comparison(path.resolve())
    _ = comparison.record  # raises before another kind of folder gets a lock
    with _held(comparison):
        record = comparison.record
        for member in record["members"]:
            member["error"] = None
            member["runs"] = {seed: one for seed, one in member["runs"].items() if one.get("accuracy") is not None}
        record["status"] = "running"
        comparison.write_record(record)
        return _go(comparison, record, emit, work)


def _refuse_another(path: Path) -> None:
    if (path / "comparison.json").is_file():
        fix = f"choose another --out, or go on with it: zoo compare --resume {shlex.quote(str(path))}"
        raise RunError(f"{path} holds a comparison already", fix=fix)


@contextlib.contextmanager
def _held(comparison: Comparison) -> Iterator[None]:
    """Keep other processes out of the folder within the block."""
    with held_by(comparison.path, comparison.work):
        try:
            yield
        finally:
            shutil.rmtree(comparison.work, ignore_errors=True)


def _apart(comparison: Comparison, work: Work, job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job with an empty folder of cached features, which is removed afterwards.

    If it were shared, a seed would reuse the features of an earlier one, and its time and budgeted epochs would not be
    comparable.
    """
    folder = comparison.work / "activations"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return work({**job, "activations": str(folder)}, emit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _go(comparison: Comparison, record: dict[str, Any], emit: Listener, work: Work) -> Comparison:
    try:
        _plan(comparison, record, emit, work)
        _run(comparison, record, emit, work)
        record["status"] = "finished"
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        record["status"] = "interrupted"
        number = error.signal_number if isinstance(error, TrainingInterrupted) else 2
        raise TrainingInterrupted(
            f"the comparison was stopped; what is finished is in {comparison.path}",
            fix=f"go on with it: zoo compare --resume {shlex.quote(str(comparison.path))}",
            signal_number=number,
        ) from None
    finally:
        record["summary"] = summarise(record)
        comparison.write_record(record)
        comparison.write_table()
        write_comparison(comparison.page, record)
    if not record["summary"]["rows"]:
        first = record["summary"]["failed"][0]
        raise RunError(
            f"no member of the comparison could be run; {first['member']}: {first['what']}",
            why=first["why"],
            fix=first["fix"] or f"then go on: zoo compare --resume {shlex.quote(str(comparison.path))}",
        )
    return comparison


def _plan(comparison: Comparison, record: dict[str, Any], emit: Listener, work: Work) -> None:
    """Plan each member before any trains, so that faults and the total time are known at once."""
    waiting = [member for member in record["members"] if member["plan"] is None]
    for number, member in enumerate(waiting):
        emit(Progress(f"planning {member['name']} ({number + 1} of {len(waiting)})", 0, 0))
        job = {"task": "plan", "backbone": member["backbone"], "dataset": record["dataset"]["ref"],
               "recipe": member["recipe"], "budget": record["budget"]}  # fmt: skip
        try:
            result = _apart(comparison, work, job, _prefixed(emit, member["name"]))
        except TrainingInterrupted:
            raise
        except ZooError as error:
            member["error"] = error.record()
            emit(Note(f"{member['name']} is left out: {_reason(error)}"))
        else:
            member["recipe"] = result.pop("recipe")
            member["plan"] = result
        comparison.write_record(record)
    planned = [member for member in record["members"] if member["plan"]]
    left = sum(member["plan"]["seconds"] * (len(record["seeds"]) - len(member["runs"])) for member in planned)
    if left:
        emit(Note(f"{len(planned)} members, {len(record['seeds'])} seed(s): about {left / 60:.1f} min of training"))


def _run(comparison: Comparison, record: dict[str, Any], emit: Listener, work: Work) -> None:
    """Run what is not finished, seed by seed, so that a comparison stopped early has runs of every member."""
    waiting = [
        (seed, member)
        for seed in record["seeds"]
        for member in record["members"]
        if member["plan"] is not None and str(seed) not in member["runs"]
    ]
    for number, (seed, member) in enumerate(waiting):
        if any(one.get("error") for one in member["runs"].values()):
            continue  # it would most likely fail again; --resume tries
        name = f"{member['name']}-{seed}"
        emit(Progress(f"run {number + 1} of {len(waiting)}: {name}", 0, 0))
        this = Run(comparison.path / name)
        recipe = member["recipe"] | {"seed": seed}
        job = {"task": "adapt", "backbone": member["backbone"], "dataset": record["dataset"]["ref"],
               "recipe": recipe, "out": str(this.path), "resume": _stopped(this)}  # fmt: skip
        try:
            result = _apart(comparison, work, job, _prefixed(emit, name))
        except TrainingInterrupted:
            raise
        except ZooError as error:
            member["runs"][str(seed)] = {"run": name, "error": error.record()}
            emit(Note(f"{name} failed: {_reason(error)}"))
        else:
            record.setdefault("environment", result["environment"])
            member["runs"][str(seed)] = {"run": name, **result}
            emit(Note(f"{name}: {result['accuracy']:.1%}, {result['seconds']['train']:.0f} s of training"))
        comparison.write_record(record)


def _reason(error: ZooError) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what


def _stopped(this: Run) -> bool:
    """Whether a run can be resumed; the folder of one that cannot is removed."""
    if not this.path.exists():
        return False
    with contextlib.suppress(RunError):
        # A finished one was stopped before it could report.
        if this.finished or (this.record.get("status") != "failed" and any(this.checkpoints.glob("*"))):
            return True
    shutil.rmtree(this.path)
    return False


def _prefixed(emit: Listener, name: str) -> Listener:
    """A listener that puts the member's name before each stage."""

    def listen(event: Any) -> None:
        emit(Progress(f"{name}: {event.stage}", event.done, event.total) if isinstance(event, Progress) else event)

    return listen


def _opened(member: Member, ref: str, emit: Listener) -> data.Dataset:
    """The data set, opened once before anything is written: its faults are not those of a member."""
    spec = lookup.get(member.entrant.backbone)
    weights = saved.resolve_weights(spec, member.entrant.weights)
    expected = preprocessing.expected_data_config(spec, weights, member.recipe.image_size)
    return data.open_dataset(ref, data_options(member.recipe, expected), lambda *state: emit(Progress(*state)))
