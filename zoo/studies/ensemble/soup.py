"""Greedy soup of several runs: one network, as fast as each of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from zoo import data
from zoo.data import Part
from zoo.errors import DataError, RunError
from zoo.events import Listener, Note, Progress, RunFinished
from zoo.models import preprocessing, saved
from zoo.models.preprocessing import DataConfig
from zoo.recipes.recipe import Recipe
from zoo.runs import lock
from zoo.runs.finish import measured, write_up, write_verification
from zoo.runs.run_folder import Run
from zoo.runs.stacked.held_out import DIFFERENT, held_out
from zoo.runs.stacked.members import StackMember, members
from zoo.studies.ensemble import ensemble_folder
from zoo.tasks.scoring import scores_of
from zoo.training import machine as machines
from zoo.training.averaging import Ingredient, Soup, State, greedy
from zoo.training.collect import collect
from zoo.training.selection import select_by_for

_BATCH = 32


def put_together(references: Sequence[str | Path | Run], out: Path | None, emit: Listener) -> Run:
    """Average runs: see `zoo.api.soup`."""
    began = time.monotonic()
    if out is not None:
        lock.refuse_used(out)
    chosen = members(references)
    _refuse_other_networks(chosen)
    emit(Progress("loading the first run", 0, 0))
    network = saved.load(chosen[0].run.path)
    config = preprocessing.data_config(network)
    found = held_out(chosen, [config] * len(chosen), emit)
    if not found.same:
        raise DataError(
            "the runs do not have the same train, val and test images",
            why="a validation or test image of the soup may be one that a run was trained on",
            fix=DIFFERENT,
        )
    if not len(found.val):
        why = f"{', '.join(found.refitted)} trained on the validation images too" if found.refitted else ""
        fix = "adapt with --refit off" if found.refitted else "adapt with more images"
        raise DataError("no validation image is left to choose a soup by", why=why, fix=fix)
    first = chosen[0].record
    machine = machines.settle(Recipe(precision="fp32"))
    accelerator = machines.make_accelerator(machine)

    copied = ("backbone", "dataset", "recipe", "resolved", "plan", "data_config", "seed")
    # Candidates are recorded from the start: an unfinished soup must not be resumed as an adaptation.
    facts = {key: first[key] for key in copied} | {
        "resolved": first["resolved"] | {"device": accelerator.device.type},  # on which its outputs are measured
        "environment": machines.environment(machine),
        "soup": {"candidates": [member.facts() for member in chosen]},
    }
    name = f"soup-{first['backbone']['name'].rpartition('/')[2]}-{found.dataset.name}"
    with ensemble_folder.created(out, name, "classifier", facts) as this:
        network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        soup = greedy_soup(chosen, network, found.val, config, accelerator, emit)
        if soup.kept == 1:
            emit(Note("no average is better than the best run alone, so the soup is that run"))
        network.load_state_dict(soup.state)
        _save(network, this, config, chosen[0])
        model, result = measured(this, found.dataset, accelerator, _BATCH, 0, emit)
        del result["bad"]  # its members' records have them
        record = this.record | {
            "status": "finished",
            "result": result,
            "best": None,
            "soup": soup_record(soup, select_by_for(len(found.val))),
            "seconds": {"total": round(time.monotonic() - began, 3)},
        }
        write_verification(this, found.test, model)
        write_up(this, found.test, record)
        shutil.rmtree(this.checkpoints, ignore_errors=True)
    emit(RunFinished(str(this.path), record))
    return this


def greedy_soup(
    chosen: Sequence[StackMember],
    network: nn.Module,
    part: Part,
    config: DataConfig,
    accelerator: Accelerator,
    emit: Listener,
) -> Soup:
    """Average runs of one architecture, greedily, by the validation images in `part`.

    `network` is any of them, on the device; it ends with the last weights that were tried.
    """
    chosen = _distinct(chosen, emit)
    done, total = 0, 2 * len(chosen) - 1

    def score(state: State) -> dict[str, float]:
        nonlocal done
        emit(Progress("trying soups", done, total))
        network.load_state_dict(state)
        batches = data.eval_batches(part, config=config, batch_size=_BATCH, device=accelerator.device)
        scores = scores_of(part.tasks)(collect(network, batches, accelerator, mixed=False))
        done += 1
        return scores

    ingredients = [Ingredient(member.facts(), _reader(member)) for member in chosen]
    return greedy(ingredients, score, select_by_for(len(part)))


def soup_record(soup: Soup, by: str) -> dict[str, Any]:
    """A record's `soup`."""
    return {"select_by": by, "kept": soup.kept, **soup.scores, "candidates": [*soup.rows]}


def averageable(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Reasons why two runs' weights cannot be averaged."""
    faults = []
    if one["backbone"]["arch"] != other["backbone"]["arch"]:
        faults.append(f"one is a {one['backbone']['arch']}, the other a {other['backbone']['arch']}")
    if one["dataset"]["classes"] != other["dataset"]["classes"]:
        faults.append("their heads have the classes in another order")
    if one["data_config"] != other["data_config"]:
        first, second = (record["data_config"]["input_size"][-1] for record in (one, other))
        sizes = f"one takes images of {first} pixels, the other of {second}"
        faults.append(sizes if first != second else "they normalise images differently")
    return faults


def _refuse_other_networks(chosen: Sequence[StackMember]) -> None:
    for member in chosen[1:]:
        if faults := averageable(chosen[0].record, member.record):
            raise RunError(
                f"the weights of {chosen[0].run.path} and {member.run.path} cannot be averaged",
                why="; ".join(faults),
                fix="name runs of one architecture; to put others together: zoo stack",
            )


def _distinct(chosen: Sequence[StackMember], emit: Listener) -> list[StackMember]:
    """The runs with different networks: an average would count one that several runs have several times."""
    distinct: list[StackMember] = []
    for member in chosen:
        state = _reader(member)()
        twin = next((other for other in distinct if _same(state, _reader(other)())), None)
        if twin is None:
            distinct.append(member)
        else:
            emit(Note(f"{member.name} has the same network as {twin.name}, so it is not tried a second time; runs do "
                      "if they share a probe and all kept the same epoch of it"))  # fmt: skip
    return distinct


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _reader(member: StackMember) -> Callable[[], State]:
    return lambda: load_file(member.run.path / "model.safetensors")


def _save(network: nn.Module, this: Run, config: DataConfig, first: StackMember) -> None:
    record = this.record
    named = {"run": record["id"], "name": record["name"], "created": record["created"]}
    facts = {**named, "backbone": record["backbone"]["name"], "requires": required(first.record)}
    saved.save(network, this.path, class_names=record["dataset"]["classes"], data_config=config, zoo=facts)


def required(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plugin that a run's model needs besides timm, from its record; None if timm is enough."""
    backbone = record["backbone"]
    return {key: backbone[key] for key in ("distribution", "version", "module")} if backbone.get("module") else None
