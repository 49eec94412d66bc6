"""Stack several runs: what they say about held-out images, the best way to combine that, and how well it does."""

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
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import Listener, Note, Progress, RunFinished
from zoo.models import preprocessing, saved
from zoo.recipes.recipe import Recipe
from zoo.runs import lock
from zoo.runs import run_folder as run
from zoo.runs.finish import SEALED, write_up
from zoo.runs.run_folder import COMBINER, MEMBERS, Run
from zoo.runs.stacked.combine import KINDS, Said
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
MOST_CLASSES = 200  # of a logistic regression: its matrices grow with the square
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything opened, nothing fitted yet."""

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
    _refuse_images(ready, parts)
    asked = {"asked": choice, "folds": parts, "members": [_facts(member) for member in ready.members]}
    first = ready.members[0].record

    facts = {
        "backbone": {
            "name": f"stack of {len(ready.members)}",
            "params": sum(parameter.numel() for parameter in ready.panel.parameters()),
            "weights": None,
        },
        "dataset": ensemble_folder.dataset_record(first["dataset"], ready.found),
        "recipe": {},
        "resolved": {"device": ready.accelerator.device.type},
        "environment": machines.environment(ready.machine),
        "seed": seed,
        "stack": asked,
    }
    with ensemble_folder.made(out, f"stack-{ready.found.dataset.name}", "stack", facts) as this:
        _copy_members(ready.members, this)
        return _carry_out(this, ready, began, emit)


def go_on(path: Path, emit: Listener) -> Run:
    """Go on with a stack whose folds were interrupted.

    Raises:
        RunError: It is no stack, is finished, or another process works on it.
    """
    began = time.monotonic()
    found = run.find(path)
    if found is None or found.record.get("kind") != "stack":
        raise RunError(f"{path} is not a stack's folder", fix="begin one: zoo stack RUN RUN …")
    this = Run(found.path.resolve())
    if this.finished:
        raise RunError(f"the stack {path} is finished already", fix=f"see {this.report}, or start another with --out")
    with lock.held(this), ensemble_folder.ended(this):
        lock.tidy(this)
        places = [this.path / MEMBERS / str(number) for number in range(len(this.record["stack"]["members"]))]
        missing = [str(place) for place in places if not (place / "run.json").is_file()]
        if missing:
            raise RunError(
                f"{path} lacks members: {', '.join(missing)}", fix="delete it, and stack the runs again: zoo stack …"
            )
        this.write_record(this.record | {"status": "running"})
        ready = _opened(again_members(this.record, places), emit)
        return _carry_out(this, ready, began, emit)


def _refuse_choice(choice: str, parts: int | None) -> None:
    if choice not in (AUTO, *KINDS):
        raise RecipeError(
            f"there is no way of combining called {choice}", fix=f"there are: {', '.join((AUTO, *KINDS))}"
        )
    if parts is not None and not 2 <= parts <= 100:
        raise RecipeError(f"{parts} folds cannot be", fix="give 2 to 100, best 5")
    if parts is not None and choice == "gated":
        raise RecipeError(
            "a gate cannot be fitted by retrained members",
            why="it looks at features, and those of another training of the same network mean something else",
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


def _refuse_images(ready: Ready, parts: int | None) -> None:
    if parts is None:
        refuse_few(ready.found, f"zoo stack {' '.join(shlex.quote(str(member.run.path)) for member in ready.members)}")
    else:
        folds.refuse_other_images(ready.members, ready.found)


def _facts(member: StackMember) -> dict[str, Any]:
    backbone = member.record["backbone"]
    return member.facts() | {
        "arch": backbone["arch"],
        "params": backbone.get("params"),
        "license": (backbone.get("weights") or {}).get("license"),
        "module": backbone.get("module"),
        "distribution": backbone.get("distribution"),
        "input": member.record["data_config"]["input_size"][-1],
    }


def _copy_members(chosen: Sequence[StackMember], this: Run) -> None:
    """Whole run folders, so that the stack's own is enough."""
    for number, member in enumerate(chosen):
        place = this.path / MEMBERS / str(number)
        with files.friendly_os_errors(place):
            shutil.copytree(member.run.path, place, ignore=shutil.ignore_patterns("checkpoints", ".*"))


def _carry_out(this: Run, ready: Ready, began: float, emit: Listener) -> Run:
    record = this.record
    facts, names = record["stack"], [entry["name"] for entry in record["stack"]["members"]]
    parts, seed, classes = facts["folds"], record["seed"], ready.members[0].classes
    notes: list[str] = []
    unlabelled = [m.name for m in ready.members if m.record.get("unlabelled") or m.record.get("target")]
    if unlabelled:
        notes.append(
            f"{', '.join(unlabelled)} learned from images without labels too, which may be among those used here"
        )
    started = [m.name for m in ready.members if m.started_here]
    if started:
        notes.append(
            f"{', '.join(started)} started from weights of a run on the same data, or of a file that is gone: they may "
            "have been trained on images used here, and what it says of these may be better than what it says of others"
        )

    def tell(stage: str, total: int) -> Any:
        return lambda done: emit(Progress(stage, done, total))

    if parts is None:
        fit_on = ready.found.val
        said = ready.panel.over(fit_on, _BATCH, tell("asking the members", len(fit_on)))
        where = ready.found.fit_on
    else:
        try:
            said = folds.out_of_fold(
                ready.members, parts, this.checkpoints / "folds", classes, ready.accelerator, emit
            )  # fmt: skip
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                "stopped while a member was retrained; what is finished is kept",
                fix=f"go on with it: zoo stack --resume {shlex.quote(str(this.path))}",
                signal_number=error.signal_number,
            ) from None
        where = f"{parts} folds of the training images"
    kinds = _kinds(facts["asked"], parts, len(classes), notes)
    ways = fitted(said, kinds, seed, lambda kind: emit(Progress(f"fitting: {kind}", 0, 0)))
    best = chosen_of(ways) if facts["asked"] == AUTO else next(w for w in ways if w.combiner.kind == facts["asked"])
    combiner = write_combiner(best.combiner, this.path / COMBINER)

    report = ready.found.test
    tested = ready.panel.over(report, _BATCH, tell("measuring the members", len(report)))
    single = names[_best_single(said)]
    entries = [Entry(name, "member", logs) for name, logs in zip(names, tested.logs, strict=True)]
    entries.append(Entry(PLAIN, "mean", tested.logs.logsumexp(0)))
    for way in ways:
        way_combiner = combiner if way is best else way.combiner
        entries.append(Entry(way.combiner.kind, "way", way_combiner.logs(tested.logs, tested.features)))
    mixed = _soup(ready, notes, emit)
    if mixed is not None:
        entries.append(Entry(SOUP, "soup", mixed[1]))
    table = contest(entries, tested.labels, classes, against=[single, PLAIN], chosen=best.combiner.kind)

    # The result is that of the folder as it is now, loaded back.
    reloaded = load_stack(this.path, this.record | {"stack": facts | {"choice": best.combiner.kind}})
    reloaded.to(ready.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    again = reloaded.panel.over(report, _BATCH, tell("measuring the saved stack", len(report)))
    logs = reloaded.combiner.logs(again.logs, again.features)
    result = measure(Outputs(logs.float(), again.labels), classes, report.ids)
    result |= {"split": ready.found.reported_on, "selected_on": where}
    weights = reloaded.combiner.weights(again.features, len(names))
    stack = facts | {
        "choice": best.combiner.kind,
        "temperature": combiner.temperature,
        "fit_on": where,
        "n": len(said.labels),
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
    """The ways that are tried: all that can be, for the table has them side by side."""
    kinds = list(KINDS)
    if parts is not None:
        kinds.remove("gated")
        notes.append("no gate was fitted: it looks at features, and those of retrained members mean something else")
    if classes > MOST_CLASSES and asked != "logistic":
        kinds.remove("logistic")
        notes.append(
            f"no logistic regression was fitted: {classes} classes make too many weights; --choice logistic does"
        )
    return kinds


def _best_single(said: Said) -> int:
    """The member that the images which fit the stack would choose."""
    score = scores_of(one_class(range(said.logs[0].shape[1])))
    scores = [score(Outputs(logs.float(), said.labels)) for logs in said.logs]
    return ranked(scores, select_by_for(len(said.labels)))[0]


def _soup(ready: Ready, notes: list[str], emit: Listener) -> tuple[dict[str, Any], torch.Tensor] | None:
    """A greedy soup of the largest group of members that can be averaged, and what it says about the images."""
    groups: list[list[int]] = []
    for place, member in enumerate(ready.members):
        for group in groups:
            if not averageable(ready.members[group[0]].record, member.record):
                group.append(place)
                break
        else:
            groups.append([place])
    largest = max(groups, key=len)
    if len(largest) < 2:
        return None
    fit, report = ready.found.val, ready.found.test
    if not len(fit):
        notes.append("no greedy soup: there are no images left to choose it by")
        return None
    chosen = [ready.members[place] for place in largest]
    network = saved.load(chosen[0].run.path)
    network.to(ready.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = preprocessing.data_config(network)
    made = greedy_soup(chosen, network, fit, config, ready.accelerator, emit)
    network.load_state_dict(made.state)
    panel = Panel([network], ready.members[0].classes)
    said = panel.over(report, _BATCH, lambda done: emit(Progress("measuring the soup", done, len(report))))
    return soup_record(made, select_by_for(len(fit))), said.logs[0]
