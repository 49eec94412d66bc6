"""Run a prepared adaptation, from its folder to its result; or go on with one that was stopped."""

from __future__ import annotations

import json
import os
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

import zoo
from zoo import data, registry, run
from zoo.adaptation.caching import Caching
from zoo.adaptation.finish import finish
from zoo.adaptation.prepare import Prepared, prepare
from zoo.engine import machine as machines
from zoo.engine.events import Listener, Note, PlanReady, RunFinished
from zoo.engine.loop import Job, train
from zoo.engine.session import Session
from zoo.errors import RecipeError, RunError, TrainingError, TrainingInterrupted, ZooError
from zoo.planning import Plan
from zoo.recipe import Recipe, recipe_of_run
from zoo.run import Run


def start(
    backbone: str,
    dataset: str,
    recipe: Recipe,
    out: Path | None,
    emit: Listener,
    *,
    chosen: dict[str, Any] | None = None,
) -> Run:
    """Adapt a backbone into a new run folder.

    Args:
        backbone: Its name.
        dataset: The data set.
        recipe: The choices.
        out: The folder; None: a new one under `runs/`.
        emit: Told about progress.
        chosen: How the backbone or the epochs were chosen, for the record; None: by the person.
    """
    began = time.monotonic()
    if out is not None:
        refuse_used(out)
    ready = prepare(backbone, dataset, recipe, emit)
    path = out or run.free_path(Path("runs"), f"{ready.spec.name}-{ready.dataset.name}")
    # One process decides: another would find the name taken already.
    this = Run(Path(broadcast_object_list([str(path.resolve())])[0]))
    if ready.accelerator.is_main_process:
        with run.friendly_os_errors(this.path):
            this.checkpoints.mkdir(parents=True)
            this.write_record(_record(this, ready) | ({"chosen": chosen} if chosen else {}))
    return _carry_out(this, ready, emit, began)


def go_on(path: Path, emit: Listener) -> Run:
    """Go on with a run that was stopped.

    Raises:
        RunError: It is finished already, or its data or plan are not what they were.
    """
    began = time.monotonic()
    found = run.find(path)
    if found is None:
        raise RunError(f"{path} is not a run folder", why="it has no run.json", fix="see `zoo runs` for the runs here")
    this = Run(found.path.resolve())
    record = this.record
    if record.get("status") == "finished":
        raise RunError(f"the run {path} is finished already", fix=f"see {this.report}, or start another with --out")
    asked = recipe_of_run(record)
    assert asked.backbone is not None and asked.dataset is not None
    planned = record["plan"]
    ready = prepare(
        asked.backbone, asked.dataset, asked.recipe, emit, cost=(planned["seconds"], planned["memory_bytes"])
    )
    _refuse_changed(this, record, ready)
    return _carry_out(this, ready, emit, began)


def _carry_out(this: Run, ready: Prepared, emit: Listener, began: float) -> Run:
    """Train, measure, and write the folder's files."""
    setup = time.monotonic() - began
    accelerator = ready.accelerator
    accelerator.wait_for_everyone()
    session = Session(this, accelerator, emit)
    for note in ready.plan.notes:
        session.emit(Note(note))
    session.emit(PlanReady(ready.plan))

    choosing = data.eval_batches(
        ready.dataset.choose,
        config=ready.config,
        batch_size=ready.settled.batch_size,
        workers=ready.settled.workers or 0,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    caching = Caching(
        model=ready.model,
        groups=ready.groups,
        recipe=ready.settled,
        dataset=ready.dataset,
        loader=ready.loader,
        choosing=choosing,
        accelerator=accelerator,
        options=ready.caches,
        names=(ready.spec.full_name, ready.dataset.name),
    )
    job = Job(
        model=ready.model,
        groups=ready.groups,
        plan=ready.plan,
        recipe=ready.settled,
        sources=caching.source,
        objective=ready.objective,
        accelerator=accelerator,
        sample_ids=[sample.id for sample in ready.dataset.fit.samples],
    )
    with _status(this, accelerator.is_main_process), _explained_memory(ready), session.stoppable():
        train(job, session)
        record = finish(this, ready, session, setup=setup, began=began)
    session.emit(RunFinished(str(this.path), record))
    return this


def _record(this: Run, ready: Prepared) -> dict[str, Any]:
    """What is known before training starts."""
    weights = ready.weights
    facts = {"name", "source", "repo", "url", "sha256", "license", "num_classes"}
    return {
        "schema": run.SCHEMA,
        "zoo": zoo.__version__,
        "kind": "classifier",
        "status": "running",
        "name": this.name,
        "id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": {
            "name": ready.spec.full_name,
            "arch": ready.spec.arch,
            "plugin": ready.spec.plugin,
            "distribution": ready.spec.distribution,
            "version": ready.spec.version,
            "module": ready.spec.module,
            "params": sum(parameter.numel() for parameter in ready.model.parameters()),
            "weights": None if weights is None else {name: getattr(weights, name) for name in sorted(facts)},
        },
        "dataset": {
            "ref": ready.dataset_ref,
            "name": ready.dataset.name,
            **_on_the_hub(ready.dataset_ref),
            "fingerprint": ready.dataset.fingerprint,
            "classes": list(ready.dataset.classes),
            "counts": ready.dataset.counts(),
            "selected_on": ready.dataset.selected_on,
            "reported_on": ready.dataset.reported_on,
            "license": ready.dataset.license,
            "bad": [image.as_dict() for image in ready.dataset.bad],
            "notes": list(ready.dataset.notes),
        },
        "recipe": ready.recipe.record(),
        "resolved": ready.resolved(),
        "plan": ready.plan.record(),
        "data_config": json.loads(json.dumps(ready.config.as_dict())),
        "environment": machines.environment(ready.machine),
        "seed": ready.recipe.seed,
        "lr_finder": ready.range_test.record() if ready.range_test else None,
    }


def _on_the_hub(reference: str) -> dict[str, str | None]:
    """Where on the Hub a data set is; None for one that is not there, and for the revision that nobody named."""
    if reference.startswith("hf:"):
        hub, _, revision = reference.removeprefix("hf:").partition("@")
        return {"hub": hub, "revision": revision or None}
    entry = registry.load().datasets.get(reference)
    return {"hub": entry.hub if entry else None, "revision": entry.revision if entry else None}


def refuse_used(path: Path) -> None:
    """Refuse a folder in which a run cannot be begun.

    Raises:
        RunError: It holds a run or something else, or cannot be made.
    """
    if (path / "run.json").is_file():
        raise RunError(
            f"{path} holds a run already",
            fix=f"choose another --out, or go on with it: zoo adapt --resume {shlex.quote(str(path))}",
        )
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is not a folder", fix="choose another --out")
    with run.friendly_os_errors(path):
        if path.is_dir() and any(path.iterdir()):
            raise RunError(f"{path} exists and is not empty", fix="choose another --out")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "no permission to write in it" if there.is_dir() else "it is not a folder"
        raise RunError(f"the run folder {path} cannot be made in {there}", why=why, fix="choose another --out")


def _refuse_changed(this: Run, record: dict[str, Any], ready: Prepared) -> None:
    """A run goes on only with the data and the plan that it started with."""
    before, now = record["dataset"]["fingerprint"], ready.dataset.fingerprint
    if before != now:
        counts = record["dataset"]["counts"]["fit"]["n"], len(ready.dataset.fit)
        raise RunError(
            f"the data of {this.path} changed since it started",
            why=f"fingerprint {before[:12]} became {now[:12]}; training images: {counts[0]}, now {counts[1]}",
            fix="bring the old data back, or start a new run",
        )
    old = Plan.from_record(record["plan"])
    if old.phases != ready.plan.phases:
        raise RunError(
            f"the plan of {this.path} is not what this zoo would make of its recipe",
            why=f"zoo {record.get('zoo')} made it, this is {zoo.__version__}",
            fix="start a new run",
        )
    processes = record["resolved"].get("processes", 1)
    if processes != ready.machine.processes:
        raise RunError(
            f"{this.path} was started with {processes} process(es), not {ready.machine.processes}",
            fix=f"resume it with {processes}",
        )


@contextmanager
def _status(this: Run, writes: bool) -> Iterator[None]:
    """Write down how a run ended when it did not end well, and leave no model that nobody measured."""
    if writes and this.record["status"] != "running":  # resumed
        this.write_record(this.record | {"status": "running"})
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if writes:
            stopped = isinstance(error, TrainingInterrupted | KeyboardInterrupt)
            with suppress(OSError):
                for name in ("config.json", "model.safetensors"):
                    (this.path / name).unlink(missing_ok=True)
            with suppress(ZooError):  # on a full disk not even this can be written; the first error says so
                this.write_record(this.record | {"status": "interrupted" if stopped else "failed"})
        raise


@contextmanager
def _explained_memory(ready: Prepared) -> Iterator[None]:
    """Say what to change when memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        size = ready.config.input_size[-1]
        raise TrainingError(
            f"out of memory with batches of {ready.settled.batch_size} images of {size} x {size} pixels",
            why=str(error).partition("\n")[0],
            fix=f"try --batch-size {max(1, ready.settled.batch_size // 2)} --accumulate 2, or a smaller --image-size",
        ) from error


def required(backbone: str | None, dataset: str | None) -> tuple[str, str]:
    """Both names, or an error that says which is missing."""
    missing = [name for name, value in (("a backbone", backbone), ("a data set", dataset)) if not value]
    if missing or backbone is None or dataset is None:
        fix = "for example: zoo adapt resnet50 --dataset cifar10"
        raise RecipeError(f"{' and '.join(missing)} must be named", fix=fix)
    return backbone, dataset
