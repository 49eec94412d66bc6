"""Start or resume a run: train what is prepared, from its folder to its result."""

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
from zoo.errors import DataError, DiskError, RunError, TrainingInterrupted, ZooError
from zoo.events import Listener, Note, PlanReady, RunFinished, RunStarted
from zoo.recipes.recipe import Recipe
from zoo.runs import domains, lock, refit, resume, run_folder
from zoo.runs.averages import averaged
from zoo.runs.finish import finish
from zoo.runs.prepare import Prepared, prepare
from zoo.runs.recipe_file import recipe_of_run
from zoo.runs.run_folder import Run
from zoo.tasks.schema import task_records
from zoo.tasks.scoring import scores_of
from zoo.training import machine, make_objective
from zoo.training.frozen_cache.phase_data import open_source
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
    """Adapt a backbone into a new run folder, by default under `runs/`.

    `chosen` records how the backbone or the epochs were chosen, if not by the user.
    """
    began = time.monotonic()
    if out is not None:
        lock.refuse_used(out)
    return begin(prepare(backbone, dataset, recipe, emit), out, emit, began, chosen)


def begin(ready: Prepared, out: Path | None, emit: Listener, began: float, chosen: dict[str, Any] | None = None) -> Run:
    """Train what is prepared, in a new run folder."""
    with ExitStack() as stack:
        path = ""
        if ready.loaded.accelerator.is_main_process:  # one process picks the name; others would find it taken
            name = f"{ready.loaded.spec.name}-{ready.loaded.dataset.name}"
            path = str(stack.enter_context(lock.made(out, name, partial(_record, ready=ready, chosen=chosen))).path)
        this = Run(Path(broadcast_object_list([path])[0]))
        return _carry_out(this, ready, emit, began)


def go_on(
    path: Path, emit: Listener, backbone: str | None = None, dataset: str | None = None, recipe: Recipe | None = None
) -> Run:
    """Resume a stopped run, by its folder or its name under `runs/`.

    Raises RunError if it is finished or in use, or its data, weights or plan have changed; RecipeError if backbone,
    data set or recipe (`resume.FREE` aside) are given and differ.
    """
    began = time.monotonic()
    found = run_folder.named(path)
    this = Run(found.path.resolve())
    _refuse_finished(this, path)
    if found.record.get("kind") == "stack" or found.record.get("soup"):
        raise RunError(f"{path} was made from runs, not trained", fix=run_folder.way_on(found.record, path))
    writes = machine.process_index() == 0
    with lock.held(this) if writes else nullcontext():
        _refuse_finished(this, path)  # perhaps by the process that held the lock until now
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
            emit(Note(f"the result may differ slightly from an uninterrupted run: {'; '.join(map(str, others))}"))
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
        source=partial(open_source, loaded, work, ready.caches),
        objective=work.objective,
        accelerator=accelerator,
        sample_ids=dataset.train.ids,
        scores=scores_of(dataset.tasks),
    )
    announced = False

    def started(step: int) -> None:
        """Announce the run once: of two trainings, with the first that has steps left."""
        nonlocal announced
        if not announced:
            session.emit(RunStarted(str(this.path), work.settled, ready.plan, step))
        announced = True

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
            if start is None:  # after a refit the validation images were trained on, and can choose no thresholds
                tasks = make_objective.with_thresholds(dataset, work.val_loader, model, accelerator)
            record = finish(this, ready, session, more, tasks, setup=setup, began=began)
    session.emit(RunFinished(str(this.path), record))
    return this


def _refuse_finished(this: Run, path: Path) -> None:
    if this.record.get("status") == "finished":
        shutil.rmtree(this.checkpoints, ignore_errors=True)  # left if it was killed just before it removed them
        raise RunError(f"the run {path} is finished already", fix=f"see {this.report}, or start another with --out")


def _record(this: Run, ready: Prepared, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """The record at the start of training."""
    loaded, weights, dataset = ready.loaded, ready.loaded.weights, ready.loaded.dataset
    facts = ("license", "name", "num_classes", "repo", "sha256", "source", "url")
    return {
        **lock.begun(this, "multitask" if len(dataset.tasks) > 1 else "classifier"),
        "backbone": {
            "name": loaded.spec.full_name,
            **{key: getattr(loaded.spec, key) for key in ("arch", "plugin", "distribution", "version", "module")},
            "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "fingerprint": loaded.fingerprint,
            "weights": None if weights is None else {name: getattr(weights, name) for name in facts},
        },
        "dataset": {
            "ref": loaded.dataset_ref,
            "name": dataset.name,
            **_on_the_hub("" if dataset.sets else loaded.dataset_ref),  # of several sets, each has its own
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
    """A data set's place on the Hub, each None if unknown."""
    return dict(zip(("hub", "revision"), references.place_on_hub(reference), strict=True))


@contextmanager
def _status(this: Run, writes: bool) -> Iterator[None]:
    """If the run fails, record that, and delete its unmeasured model."""
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
            with suppress(ZooError, MemoryError):  # the first error says why even this fails
                this.write_record(this.record | {"status": "interrupted" if stopped else "failed"})
        raise


@contextmanager
def _resumable(this: Run, session: Session) -> Iterator[None]:
    """Adds the command to resume to errors about images or the disk."""
    way_on = f"zoo adapt --resume {shlex.quote(str(this.path))}"
    try:
        yield
    except DataError as error:  # raised with a batch, and so between two steps
        if not session.save_between_steps():
            raise
        fix = f"{error.fix}; the state is saved, go on with it: {way_on}"
        raise DataError(error.what, why=error.why, fix=fix) from error
    except DiskError as error:
        fix = f"{'free some space' if error.full else 'make it writable again'}, and go on with it: {way_on}"
        raise DiskError(error.what, why=error.why, fix=fix, full=error.full) from error
