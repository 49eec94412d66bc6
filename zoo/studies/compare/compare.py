"""Run a comparison: plan every member, run them seed by seed, go on after one fails, and sum up."""

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
    """Begin a comparison: see `zoo.api.compare`. `work` does a job, in a process of its own unless told otherwise."""
    if machine.process_count() > 1:
        raise RecipeError("a comparison starts a process for each run", fix="start it without accelerate launch")
    if seeds < 1:
        raise RecipeError(f"{seeds} seeds are none to compare with", fix="use one or more, best 3 or more")
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
        _refuse_another(path)  # which another process has begun while the data set was opened
        comparison.write_record(record)
        return _go(comparison, record, emit, work)


def go_on(path: Path, emit: Listener, work: Work = carry_out) -> Comparison:
    """Go on with a comparison: what is finished stays, what failed or was interrupted is tried again.

    Raises:
        RunError: It is none, or another process works on it.
    """
    comparison = Comparison(path.resolve())
    _ = comparison.record  # or a folder that is none would get a lock
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
    """Keep other processes from the folder within the block."""
    with held_by(comparison.path, comparison.work):
        try:
            yield
        finally:
            shutil.rmtree(comparison.work, ignore_errors=True)


def _apart(comparison: Comparison, work: Work, job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job with a folder of activations that is empty, and gone afterwards.

    Were it shared, a seed would read what the seed before had computed, or somebody last week, and its time, and the
    epochs that a budget leaves it, would be those of a luckier member.
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
    """Settle what each member will do, before any trains: what cannot be is known at once, and so is the time."""
    waiting = [member for member in record["members"] if member["plan"] is None]
    for number, member in enumerate(waiting):
        emit(Progress(f"planning {member['name']} ({number + 1} of {len(waiting)})", 0, 0))
        job = {"task": "plan", "backbone": member["backbone"], "dataset": record["dataset"]["ref"],
               "recipe": member["recipe"], "budget": record["budget"]}  # fmt: skip
        try:
            answer = _apart(comparison, work, job, _muted(emit, member["name"]))
        except TrainingInterrupted:
            raise
        except ZooError as error:
            member["error"] = error.record()
            emit(Note(f"{member['name']} is left out: {error.what}{f' ({error.why})' if error.why else ''}"))
        else:
            member["recipe"] = answer.pop("recipe")
            member["plan"] = answer
        comparison.write_record(record)
    planned = [member["plan"]["seconds"] for member in record["members"] if member["plan"]]
    left = sum(
        member["plan"]["seconds"] * (len(record["seeds"]) - len(member["runs"]))
        for member in record["members"]
        if member["plan"]
    )
    if planned and left:
        emit(Note(f"{len(planned)} members, {len(record['seeds'])} seed(s): about {left / 60:.1f} min of training"))


def _run(comparison: Comparison, record: dict[str, Any], emit: Listener, work: Work) -> None:
    """Run what is not finished, seed by seed: a comparison that is stopped early has something of every member."""
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
            answer = _apart(comparison, work, job, _muted(emit, name))
        except TrainingInterrupted:
            raise
        except ZooError as error:
            member["runs"][str(seed)] = {"run": name, "error": error.record()}
            emit(Note(f"{name} failed: {error.what}{f' ({error.why})' if error.why else ''}"))
        else:
            record.setdefault("environment", answer["environment"])
            member["runs"][str(seed)] = {"run": name, **answer}
            emit(Note(f"{name}: {answer['accuracy']:.1%}, {answer['seconds']['train']:.0f} s of training"))
        comparison.write_record(record)


def _stopped(this: Run) -> bool:
    """Whether a run can be gone on with; what is left of one that cannot is removed."""
    if this.path.exists():
        try:
            if this.finished:  # stopped before it could say so
                return True
            if this.record.get("status") != "failed" and any(this.checkpoints.glob("*")):
                return True
        except RunError:
            pass
        shutil.rmtree(this.path)
    return False


def _muted(emit: Listener, name: str) -> Listener:
    """A member's events under its name."""

    def listen(event: Any) -> None:
        emit(Progress(f"{name}: {event.stage}", event.done, event.total) if isinstance(event, Progress) else event)

    return listen


def _opened(member: Member, ref: str, emit: Listener) -> data.Dataset:
    """The data set, opened once before anything is written: its faults are no member's."""
    spec = lookup.get(member.entrant.backbone)
    weights = saved.resolve_weights(spec, member.entrant.weights)
    expected = preprocessing.expected_data_config(spec, weights, member.recipe.image_size)

    def tell(stage: str, done: int, total: int) -> None:
        emit(Progress(stage, done, total))

    return data.open_dataset(ref, data_options(member.recipe, expected), tell)
