"""One member of a comparison in a process of its own: `python -m zoo.studies.compare.child`, a job on stdin.

What happens goes to stdout as lines of JSON, the answer last; `process.py` reads them. A process each keeps
the members' memory apart, and a member that kills its process kills nobody else's.
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

TOLD = (Progress, PhaseStarted, StepDone)  # what the comparison shows of a member


def plan(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """What a member will do and what it costs to use: its recipe within the budget, parameters, FLOPs."""
    recipe = Recipe.from_record(job["recipe"])
    ready = prepare(job["backbone"], job["dataset"], recipe, emit)
    cut = fitted(ready.plan, recipe, Budget.parse(job["budget"]) if job["budget"] else None)
    if cut.fault is not None:
        raise cut.fault
    return {
        "recipe": cut.recipe.record(),
        "epochs": cut.epochs,
        "steps": cut.steps,
        "seconds": cut.seconds,
        "memory_bytes": cut.memory_bytes,
        "params": sum(parameter.numel() for parameter in ready.loaded.model.parameters()),
        "flops": flops(ready.loaded.model, ready.loaded.config.input_size),
        "input": list(ready.loaded.config.input_size),
        "weights": origin.of(ready.loaded.spec, ready.loaded.weights),
        "notes": list(ready.plan.notes),
    }


def adapt(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """One run of a member, begun or gone on with, and what it says about every image that it reports on."""
    run = Run(Path(job["out"]))
    if job["resume"]:
        if not run.finished:
            train.go_on(run.path, emit)
    else:
        train.start(job["backbone"], job["dataset"], Recipe.from_record(job["recipe"]), run.path, emit)
    record = run.record
    memory = peak_memory(record["resolved"]["device"])  # before anything else that would take some
    return {**measured(run, emit), "memory_bytes": None if job["resume"] else memory}


def measured(run: Run, emit: Listener) -> dict[str, Any]:
    """What a finished run says about every image that it reports on, and how quickly."""
    outputs, ids, classifier = own_outputs(run, emit)
    right = (outputs.logits.argmax(1) == outputs.labels).numpy()
    emit(Progress("timing the network", 0, 0))
    record = run.record
    return {
        "accuracy": record["result"]["accuracy"],
        "loss": record["result"]["loss"],
        "n": record["result"]["n"],
        "split": record["result"]["split"],
        "selected_on": record["result"]["selected_on"],
        "seconds": record["seconds"],
        "environment": record["environment"],
        "fingerprint": record["dataset"]["fingerprint"],
        "images_per_second": images_per_second(classifier.model, classifier.config.input_size),
        "right": "".join("01"[int(value)] for value in right),
        "ids": hash_of_ids(ids),
    }


TASKS = {"plan": plan, "adapt": adapt}


def do(job: dict[str, Any], emit: Listener) -> dict[str, Any]:
    """Do a job. It finds no activations that another one has left: those would make its training look quicker."""
    with activations_apart(Path(job["activations"])):
        return TASKS[job["task"]](job, emit)


def main() -> int:
    """Do the job on stdin; what libraries print goes to stderr."""
    warnings.simplefilter("ignore")
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.stdin.read())

    deaf = False

    def write(kind: str, content: Any) -> None:
        nonlocal deaf
        if deaf:
            return
        try:
            stream.write(json.dumps([kind, content], ensure_ascii=True) + "\n")
            stream.flush()
        except BrokenPipeError:  # the comparison is gone: save what there is, and stop
            deaf = True
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
