"""Worker process of a comparison, for one member: `python -m zoo.studies.compare.child`, with a job on stdin.

Events go to stdout as lines of JSON, the answer last; `process.py` reads them. With a process each, members do not
share memory, and a member that kills its process kills no other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from zoo.base.cache import activations_apart
from zoo.data.types import hash_of_ids
from zoo.errors import TrainingInterrupted, ZooError
from zoo.events import Event, Listener, PhaseStarted, Progress, StepDone
from zoo.recipes.budget import Budget, fitted
from zoo.recipes.recipe import Recipe
from zoo.runs import train
from zoo.runs.prepare import prepare
from zoo.runs.run_folder import Run
from zoo.runs.use import own_outputs
from zoo.studies.compare import origin
from zoo.studies.compare.inference_cost import flops, images_per_second, peak_memory

TOLD = (Progress, PhaseStarted, StepDone)  # the events that the comparison shows


def plan(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """A member's recipe within the budget, its planned training, and what its network costs: parameters, FLOPs."""
    recipe = Recipe.from_record(job["recipe"])
    ready = prepare(job["backbone"], job["dataset"], recipe, emit)
    cut = fitted(ready.plan, recipe, Budget.parse(job["budget"]) if job["budget"] else None)
    if cut.fault is not None:
        raise cut.fault
    loaded = ready.loaded
    return {
        "recipe": cut.recipe.record(),
        **{key: getattr(cut, key) for key in ("epochs", "steps", "seconds", "memory_bytes")},
        "params": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "flops": flops(loaded.model, loaded.config.input_size),
        "input": list(loaded.config.input_size),
        "weights": origin.of(loaded.spec, loaded.weights),
        "notes": list(ready.plan.notes),
    }


def adapt(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """One run of a member, started or resumed, and its result on each test image."""
    run = Run(Path(job["out"]))
    if job["resume"]:
        if not run.finished:
            train.go_on(run.path, emit)
    else:
        train.start(job["backbone"], job["dataset"], Recipe.from_record(job["recipe"]), run.path, emit)
    memory = peak_memory(run.record["resolved"]["device"])  # before measuring takes some
    return {**measured(run, emit), "memory_bytes": None if job["resume"] else memory}


def measured(run: Run, emit: Listener) -> dict[str, Any]:
    """A finished run's result, whether it is right on each test image, and its speed."""
    outputs, ids, classifier = own_outputs(run, emit)
    right = (outputs.logits.argmax(1) == outputs.labels).numpy()
    emit(Progress("timing the network", 0, 0))
    record = run.record
    return {
        **{key: record["result"][key] for key in ("accuracy", "loss", "n", "split", "selected_on")},
        "seconds": record["seconds"],
        "environment": record["environment"],
        "fingerprint": record["dataset"]["fingerprint"],
        "images_per_second": images_per_second(classifier.model, classifier.config.input_size),
        "right": "".join("01"[int(value)] for value in right),
        "ids": hash_of_ids(ids),
    }


TASKS = {"plan": plan, "adapt": adapt}


def do(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job, without cached features of another one, which would make its training look faster."""
    with activations_apart(Path(job["activations"])):
        return TASKS[job["task"]](job, emit)


def main() -> int:
    """Do the job on stdin; the output of libraries goes to stderr."""
    warnings.simplefilter("ignore")
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.stdin.read())
    closed = False

    def write(kind: str, content: Any) -> None:
        nonlocal closed
        if closed:
            return
        try:
            stream.write(json.dumps([kind, content], ensure_ascii=True) + "\n")
            stream.flush()
        except BrokenPipeError:  # the comparison is gone: save the state, and stop
            closed = True
            os.kill(os.getpid(), signal.SIGTERM)

    def emit(event: Event) -> None:
        if isinstance(event, TOLD):
            content = {entry.name: getattr(event, entry.name) for entry in dataclasses.fields(event)}
            write(type(event).__name__, content | ({"rates": {}} if isinstance(event, StepDone) else {}))

    try:
        write("answer", do(job, emit))
    except TrainingInterrupted as error:
        write("interrupted", error.record())
        return 128 + error.signal_number
    except ZooError as error:
        write("error", error.record())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
