"""Stack of several runs: predict held-out images, choose the best way to combine, and measure it."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from zoo.base import files
from zoo.data import Part
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import Listener, Note, Progress, RunFinished
from zoo.models import preprocessing, saved
from zoo.recipes.recipe import Recipe
from zoo.runs import lock
from zoo.runs import run_folder as run
from zoo.runs.finish import SEALED, write_up
from zoo.runs.run_folder import COMBINER, MEMBERS, Run
from zoo.runs.stacked.combine import KINDS, MemberOutputs
from zoo.runs.stacked.held_out import HeldOut, held_out, refuse_few
from zoo.runs.stacked.members import PLAIN, SOUP, StackMember, again_members, members
from zoo.runs.stacked.model import Panel, load_stack, write_combiner
from zoo.studies.ensemble import ensemble_folder, folds
from zoo.studies.ensemble.fit import chosen_of, fitted
from zoo.studies.ensemble.soup import averageable, greedy_soup, soup_record
from zoo.studies.ensemble.standings import Entry, contest
from zoo.tasks.outputs import Outputs
from zoo.tasks.schema import one_class
from zoo.tasks.scoring import scores_of
from zoo.tasks.single_label import measure
from zoo.training import machine as machines
from zoo.training.machine import Machine
from zoo.training.selection import ranked, select_by_for

AUTO = "auto"
MOST_CLASSES = 200  # for a logistic regression: its matrices grow with the square
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything loaded, nothing fitted yet."""

    members: list[StackMember]
    panel: Panel  # on its device
    found: HeldOut
    machine: Machine
    accelerator: Accelerator


def start(
    references: Sequence[str | Path | Run],
    *,
    choice: str,
    parts: int | None,
    seed: int,
    out: Path | None,
    emit: Listener,
) -> Run:
    """Stack runs in a new folder: see `zoo.api.stack`."""
    began = time.monotonic()
    _refuse_choice(choice, parts)
    if out is not None:
        lock.refuse_used(out)
    ready = _opened(members(references), emit)
    if parts is None:
        names = " ".join(shlex.quote(str(member.run.path)) for member in ready.members)
        refuse_few(ready.found, f"zoo stack {names}")
    else:
        folds.refuse_other_images(ready.members, ready.found)
    facts = {
        "backbone": {
            "name": f"stack of {len(ready.members)}",
            "params": sum(parameter.numel() for parameter in ready.panel.parameters()),
            "weights": None,
        },
        "dataset": ensemble_folder.dataset_record(ready.members[0].record["dataset"], ready.found),
        "recipe": {},
        "resolved": {"device": ready.accelerator.device.type},
        "environment": machines.environment(ready.machine),
        "seed": seed,
        "stack": {"asked": choice, "folds": parts, "members": [_facts(member) for member in ready.members]},
    }
    with ensemble_folder.created(out, f"stack-{ready.found.dataset.name}", "stack", facts) as this:
        _copy_members(ready.members, this)
        return _carry_out(this, ready, began, emit)


def go_on(path: Path, emit: Listener) -> Run:
    """Resume a stack whose folds were interrupted.

    Raises RunError if it is not a stack, is finished, or another process works on it.
    """
    began = time.monotonic()
    found = run.find(path)
    if found is None or found.record.get("kind") != "stack":
        raise RunError(f"{path} is not a stack's folder", fix="start one: zoo stack RUN RUN …")
    this = Run(found.path.resolve())
    if this.finished:
        raise RunError(f"the stack {path} is finished already", fix=f"see {this.report}, or start another with --out")
    with lock.held(this), ensemble_folder.failure_recorded(this):
        lock.tidy(this)
        places = [this.path / MEMBERS / str(number) for number in range(len(this.record["stack"]["members"]))]
        if missing := [str(place) for place in places if not (place / "run.json").is_file()]:
            fix = "delete it, and stack the runs again: zoo stack …"
            raise RunError(f"{path} lacks members: {', '.join(missing)}", fix=fix)
        this.write_record(this.record | {"status": "running"})
        ready = _opened(again_members(this.record, places), emit)
        return _carry_out(this, ready, began, emit)


def _refuse_choice(choice: str, parts: int | None) -> None:
    if choice not in (AUTO, *KINDS):
        fix = f"there are: {', '.join((AUTO, *KINDS))}"
        raise RecipeError(f"there is no way of combining called {choice}", fix=fix)
    if parts is not None and not 2 <= parts <= 100:
        raise RecipeError(f"{parts} folds are not possible", fix="give 2 to 100, best 5")
    if parts is not None and choice == "gated":
        raise RecipeError(
            "a gate cannot be fitted by retrained members",
            why="it uses features, and those of another training of the same network mean something else",
            fix="leave --folds out, or choose another way",
        )


def _opened(chosen: list[StackMember], emit: Listener) -> Ready:
    emit(Progress("loading the members", 0, 0))
    panel = Panel([saved.load(member.run.path) for member in chosen], chosen[0].classes)
    machine = machines.settle(Recipe(precision="fp32"))
    accelerator = machines.make_accelerator(machine)
    panel.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    configs = [preprocessing.data_config(network) for network in panel.networks]
    return Ready(chosen, panel, held_out(chosen, configs, emit), machine, accelerator)


def _facts(member: StackMember) -> dict[str, Any]:
    backbone = member.record["backbone"]
    return member.facts() | {
        "arch": backbone["arch"],
        "params": backbone.get("params"),
        "license": (backbone.get("weights") or {}).get("license"),
        **{key: backbone.get(key) for key in ("module", "distribution")},
        "input": member.record["data_config"]["input_size"][-1],
    }


def _copy_members(chosen: Sequence[StackMember], this: Run) -> None:
    """Copy whole run folders, so that the stack needs no others."""
    for number, member in enumerate(chosen):
        place = this.path / MEMBERS / str(number)
        with files.friendly_os_errors(place):
            shutil.copytree(member.run.path, place, ignore=shutil.ignore_patterns("checkpoints", ".*"))


def _carry_out(this: Run, ready: Ready, began: float, emit: Listener) -> Run:
    record = this.record
    facts, names = record["stack"], [entry["name"] for entry in record["stack"]["members"]]
    parts, seed, classes = facts["folds"], record["seed"], ready.members[0].classes
    notes: list[str] = []
    if unlabelled := [m.name for m in ready.members if m.record.get("unlabelled") or m.record.get("target")]:
        notes.append(f"{', '.join(unlabelled)} learned from unlabelled images too, which may be among those used here")
    if started := [m.name for m in ready.members if m.started_here]:
        notes.append(
            f"{', '.join(started)} started from weights of a run on the same data, or of a file that is gone: they may "
            "have been trained on images used here, on which predictions may then be better than on others"
        )

    def predict(panel: Panel, part: Part, stage: str) -> MemberOutputs:
        return panel.over(part, _BATCH, lambda done: emit(Progress(stage, done, len(part))))

    if parts is None:
        predictions, where = predict(ready.panel, ready.found.val, "predicting by the members"), ready.found.fit_on
    else:
        try:
            root = this.checkpoints / "folds"
            predictions = folds.out_of_fold(ready.members, parts, root, classes, ready.accelerator, emit)
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                "stopped while a member was retrained; what is finished is kept",
                fix=f"go on with it: zoo stack --resume {shlex.quote(str(this.path))}",
                signal_number=error.signal_number,
            ) from None
        where = f"{parts} folds of the training images"
    kinds = _kinds(facts["asked"], parts, len(classes), notes)
    ways = fitted(predictions, kinds, seed, lambda kind: emit(Progress(f"fitting: {kind}", 0, 0)))
    best = chosen_of(ways) if facts["asked"] == AUTO else next(w for w in ways if w.combiner.kind == facts["asked"])
    combiner = write_combiner(best.combiner, this.path / COMBINER)

    report = ready.found.test
    tested = predict(ready.panel, report, "measuring the members")
    single = names[_best_single(predictions)]
    entries = [Entry(name, "member", logs) for name, logs in zip(names, tested.logs, strict=True)]
    entries.append(Entry(PLAIN, "mean", tested.logs.logsumexp(0)))
    for way in ways:
        logs = (combiner if way is best else way.combiner).logs(tested.logs, tested.features)
        entries.append(Entry(way.combiner.kind, "way", logs))
    mixed = _soup(ready, notes, emit)
    if mixed is not None:
        entries.append(Entry(SOUP, "soup", mixed[1]))
    table = contest(entries, tested.labels, classes, against=[single, PLAIN], chosen=best.combiner.kind)

    # The result is measured on the saved folder, loaded back.
    reloaded = load_stack(this.path, this.record | {"stack": facts | {"choice": best.combiner.kind}})
    reloaded.to(ready.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    again = predict(reloaded.panel, report, "measuring the saved stack")
    logs = reloaded.combiner.logs(again.logs, again.features)
    result = measure(Outputs(logs.float(), again.labels), classes, report.ids)
    result |= {"split": ready.found.reported_on, "selected_on": where}
    weights = reloaded.combiner.weights(again.features, len(names))
    stack = facts | {
        "choice": best.combiner.kind,
        "temperature": combiner.temperature,
        "fit_on": where,
        "n": len(predictions.labels),
        "best_single": single,
        "weights": weights.tolist(),
        "ways": [way.record() for way in ways],
        **table,
        "soup": mixed[0] if mixed is not None else None,
        "notes": notes,
    }
    for note in notes:
        emit(Note(note))
    record = this.record | {
        "status": "finished",
        "result": result,
        "stack": stack,
        "best": None,
        "seconds": {"total": round(time.monotonic() - began, 3)},
    }
    inside = [f"{MEMBERS}/{number}/{name}" for number in range(len(names)) for name in SEALED]
    write_up(this, report, record, (COMBINER, *inside))
    shutil.rmtree(this.checkpoints, ignore_errors=True)
    emit(RunFinished(str(this.path), record))
    return this


def _kinds(asked: str, parts: int | None, classes: int, notes: list[str]) -> list[str]:
    """The ways to try: all that are possible, since the table compares them."""
    kinds = list(KINDS)
    if parts is not None:
        kinds.remove("gated")
        notes.append("no gate was fitted: it uses features, and those of retrained members mean something else")
    if classes > MOST_CLASSES and asked != "logistic":
        kinds.remove("logistic")
        why = f"{classes} classes need too many weights"
        notes.append(f"no logistic regression was fitted: {why}; --choice logistic fits one")
    return kinds


def _best_single(predictions: MemberOutputs) -> int:
    """The member with the best score on the images that the stack is fitted on."""
    score = scores_of(one_class(range(predictions.logs[0].shape[1])))
    scores = [score(Outputs(logs.float(), predictions.labels)) for logs in predictions.logs]
    return ranked(scores, select_by_for(len(predictions.labels)))[0]


def _soup(ready: Ready, notes: list[str], emit: Listener) -> tuple[dict[str, Any], torch.Tensor] | None:
    """The record of a greedy soup of the largest group of members that can be averaged, and its log-probabilities."""
    groups: list[list[StackMember]] = []
    for member in ready.members:
        for group in groups:
            if not averageable(group[0].record, member.record):
                group.append(member)
                break
        else:
            groups.append([member])
    chosen = max(groups, key=len)
    if len(chosen) < 2:
        return None
    fit, report = ready.found.val, ready.found.test
    if not len(fit):
        notes.append("no greedy soup: there are no validation images to choose it by")
        return None
    network = saved.load(chosen[0].run.path)
    network.to(ready.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = preprocessing.data_config(network)
    soup = greedy_soup(chosen, network, fit, config, ready.accelerator, emit)
    network.load_state_dict(soup.state)
    panel = Panel([network], ready.members[0].classes)
    predictions = panel.over(report, _BATCH, lambda done: emit(Progress("measuring the soup", done, len(report))))
    return soup_record(soup, select_by_for(len(fit))), predictions.logs[0]
