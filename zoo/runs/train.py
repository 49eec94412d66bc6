"""Run a prepared adaptation, from its folder to its result; or go on with one that was stopped."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from zoo.base import references
from zoo.base.durations import parse_interval
from zoo.errors import DataError, DiskError, RecipeError, RunError, TrainingInterrupted, ZooError
from zoo.events import Listener, Note, PlanReady, RunFinished, RunStarted
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_other_data
from zoo.runs import domains, lock, refit, resume, run_folder
from zoo.runs.averages import averaged
from zoo.runs.finish import finish
from zoo.runs.prepare import Prepared, prepare
from zoo.runs.recipe_file import recipe_of_run
from zoo.runs.run_folder import Run
from zoo.tasks.schema import task_records
from zoo.tasks.scoring import scores_of
from zoo.training import machine, make_objective
from zoo.training.frozen_cache.phase_data import sources_for
from zoo.training.loop import Job, train
from zoo.training.memory import explained_memory
from zoo.training.state.session import Session


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
        lock.refuse_used(out)
    return begin(prepare(backbone, dataset, recipe, emit), out, emit, began, chosen)


def begin(ready: Prepared, out: Path | None, emit: Listener, began: float, chosen: dict[str, Any] | None = None) -> Run:
    """Train what is prepared, in a new run folder."""
    with ExitStack() as stack:
        made: Run | None = None
        if ready.loaded.accelerator.is_main_process:  # one process decides: another would find the name taken already
            name = f"{ready.loaded.spec.name}-{ready.loaded.dataset.name}"
            made = stack.enter_context(lock.made(out, name, partial(_record, ready=ready, chosen=chosen)))
        this = Run(Path(broadcast_object_list([str(made.path) if made else ""])[0]))
        return _carry_out(this, ready, emit, began)


def go_on(
    path: Path, emit: Listener, backbone: str | None = None, dataset: str | None = None, recipe: Recipe | None = None
) -> Run:
    """Go on with a run that was stopped.

    Args:
        path: Its folder, or its name under `runs/`.
        emit: Whoever listens.
        backbone: What is asked for, if anything is; it must be what the run was started with.
        dataset: As the backbone.
        recipe: As the backbone, `changes.FREE` aside.

    Raises:
        RunError: It is finished already or in use, or its data, weights or plan are not what they were.
        RecipeError: Something else is asked for.
    """
    began = time.monotonic()
    found = run_folder.named(path)
    this = Run(found.path.resolve())
    _refuse_finished(this, path)
    if found.record.get("kind") == "stack" or found.record.get("soup"):
        raise RunError(f"{path} is put together of runs, not trained", fix=run_folder.way_on(found.record, path))
    writes = machine.process_index() == 0
    with lock.held(this) if writes else nullcontext():
        _refuse_finished(this, path)  # by the process that held it until now
        if writes:
            lock.tidy(this)
        record = this.record
        asked = recipe_of_run(record)
        changed = resume.free_choices(this, asked, record["recipe"], backbone, dataset, recipe)
        asked = replace(asked, recipe=replace(asked.recipe, **changed))
        assert asked.backbone is not None and asked.dataset is not None
        planned = record["plan"]
        cost = (planned["seconds"], planned["memory_bytes"], planned.get("data_wait"))
        ready = prepare(asked.backbone, asked.dataset, asked.recipe, emit, cost=cost)
        resume.refuse_changed(this, record, ready.loaded, ready.plan)
        others = resume.other_environment(record, ready.loaded.machine)
        if others and writes:
            emit(Note(f"it may end a little otherwise than it would have: {'; '.join(map(str, others))}"))
        if writes and changed:
            resolved = {name: changed.get(name, value) for name, value in record["resolved"].items()}
            this.write_record(record | {"recipe": record["recipe"] | changed, "resolved": resolved})
        return _carry_out(this, ready, emit, began)


def _carry_out(this: Run, ready: Prepared, emit: Listener, began: float) -> Run:
    """Train, measure, and write the folder's files."""
    setup = time.monotonic() - began
    loaded, work = ready.loaded, ready.work
    accelerator, dataset, model = loaded.accelerator, loaded.dataset, loaded.model
    accelerator.wait_for_everyone()
    session = Session(
        this.path,
        this.metrics_path,
        this.checkpoints,
        accelerator,
        emit,
        every=parse_interval(loaded.recipe.checkpoint_every),
        keep=loaded.recipe.checkpoint_keep,
    )
    session.emit(PlanReady(ready.plan))

    job = Job(
        model=model,
        groups=loaded.groups,
        plan=ready.plan,
        recipe=work.settled,
        sources=sources_for(ready.plan.phases, loaded, work, ready.caches),
        objective=work.objective,
        accelerator=accelerator,
        sample_ids=dataset.train.ids,
        scores=scores_of(dataset.tasks),
    )
    told: list[int] = []

    def started(step: int) -> None:
        """Tell it once: of two trainings, for the first one that has steps left to do."""
        if not told:
            session.emit(RunStarted(str(this.path), work.settled, ready.plan, step))
        told.append(step)

    explained = explained_memory(work.settled.batch, loaded.config.input_size[-1])
    start, first = refit.start_of(work.settled, model), session
    with _status(this, accelerator.is_main_process), explained:
        with _resumable(this, session):
            domains.remember_features(this, loaded, work.settled.batch)
        if start is not None:
            with _resumable(this, session), session.stoppable():
                train(job, session, started)
            tasks = make_objective.with_thresholds(dataset, work.val_loader, model, accelerator)
            session = refit.session_after(first)
            job = refit.job_after(job, first.position, ready, start)
        with _resumable(this, session), session.stoppable():
            train(job, session, started)
            started(session.position.step)
            more = averaged(loaded, work, session) | {
                "best": first.position.best,
                "refit": None if start is None else refit.record(dataset, session.position),
            }
            if start is None:  # images that a second training has seen can choose nothing
                tasks = make_objective.with_thresholds(dataset, work.val_loader, model, accelerator)
            record = finish(this, ready, session, more, tasks, setup=setup, began=began)
    session.emit(RunFinished(str(this.path), record))
    return this


def _refuse_finished(this: Run, path: Path) -> None:
    if this.record.get("status") == "finished":
        if this.checkpoints.exists():  # it was killed between the last two things that a run does
            shutil.rmtree(this.checkpoints, ignore_errors=True)
        raise RunError(f"the run {path} is finished already", fix=f"see {this.report}, or start another with --out")


def _record(this: Run, ready: Prepared, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """What is known before training starts."""
    loaded, weights, dataset = ready.loaded, ready.loaded.weights, ready.loaded.dataset
    facts = {"name", "source", "repo", "url", "sha256", "license", "num_classes"}
    return {
        **lock.begun(this, "multitask" if len(dataset.tasks) > 1 else "classifier"),
        "backbone": {
            "name": loaded.spec.full_name,
            "arch": loaded.spec.arch,
            "plugin": loaded.spec.plugin,
            "distribution": loaded.spec.distribution,
            "version": loaded.spec.version,
            "module": loaded.spec.module,
            "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "fingerprint": loaded.fingerprint,
            "weights": None if weights is None else {name: getattr(weights, name) for name in sorted(facts)},
        },
        "dataset": {
            "ref": loaded.dataset_ref,
            "name": dataset.name,
            **_on_the_hub("" if dataset.sets else loaded.dataset_ref),  # of several sets, each says so for itself
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "counts": dataset.counts(),
            "selected_on": dataset.selected_on,
            "reported_on": dataset.reported_on,
            "license": dataset.license,
            "bad": [image.as_dict() for image in dataset.bad],
            "notes": list(dataset.notes),
            **task_records(dataset.tasks),
            **({"sets": [asdict(one) | _on_the_hub(one.ref) for one in dataset.sets]} if dataset.sets else {}),
        },
        "recipe": loaded.recipe.record(),
        "resolved": ready.resolved(),
        "plan": ready.plan.record(),
        "data_config": json.loads(json.dumps(loaded.config.as_dict())),
        "environment": machine.environment(loaded.machine),
        "seed": loaded.recipe.seed,
        "lr_finder": ready.range_test.record() if ready.range_test else None,
        **domains.facts(loaded),
        **({"chosen": chosen} if chosen else {}),
    }


def _on_the_hub(reference: str) -> dict[str, str | None]:
    """Where on the Hub a data set is; None for one that is not there, and for the revision that nobody named."""
    hub, revision = references.place_on_hub(reference)
    return {"hub": hub, "revision": revision}


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
            with suppress(ZooError, MemoryError):  # not even this can be done any more; the first error says why
                this.write_record(this.record | {"status": "interrupted" if stopped else "failed"})
        raise


@contextmanager
def _resumable(this: Run, session: Session) -> Iterator[None]:
    """Say how to go on when images cannot be had or a file cannot be written."""
    way_on = f"zoo adapt --resume {shlex.quote(str(this.path))}"
    try:
        yield
    except DataError as error:  # it comes with a batch, and so between two steps
        if not session.save_between_steps():
            raise
        fix = f"{error.fix}; the state is saved, go on with it: {way_on}"
        raise DataError(error.what, why=error.why, fix=fix) from error
    except DiskError as error:
        first = "free some space" if error.full else "make it writable again"
        raise DiskError(
            error.what, why=error.why, fix=f"{first}, and go on with it: {way_on}", full=error.full
        ) from error


def required(backbone: str | None, dataset: str | None, recipe: Recipe) -> tuple[str, str]:
    """Both names, or an error that says which is missing.

    Tasks name their data sets, of which the first stands for all.
    """
    refuse_other_data(recipe, dataset)
    named = [spec.dataset for spec in recipe.task_specs]
    dataset = named[0] if named else dataset
    missing = [name for name, value in (("a backbone", backbone), ("a data set", dataset)) if not value]
    if missing or backbone is None or dataset is None:
        fix = "for example: zoo adapt resnet50 --dataset cifar10"
        raise RecipeError(f"{' and '.join(missing)} must be named", fix=fix)
    return backbone, dataset
