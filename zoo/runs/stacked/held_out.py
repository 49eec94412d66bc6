"""Held-out images to fit and test a stack on: none that a member was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo import data
from zoo.data import Dataset, Part
from zoo.errors import DataError
from zoo.events import Listener, Progress
from zoo.models.preprocessing import DataConfig
from zoo.runs.load import data_options
from zoo.runs.run_folder import MEMBERS, Run
from zoo.runs.stacked.members import StackMember, again_members

LEAST = 10  # images of each class; with fewer, a combination fits noise
DIFFERENT = "adapt the members on the same splits: the same data options, and one --data-seed if their seeds differ"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that no member was trained on, labelled in the shared order."""

    val: Part  # to fit the combination; at most they chose an epoch
    test: Part  # used for neither training nor choosing
    dataset: Dataset  # the first member's, which these come from
    fit_on: str  # "val (cut from train)", …
    reported_on: str
    same: bool  # whether all members have the same splits
    refitted: tuple[str, ...]  # members that were also trained on validation images


def held_out(members: Sequence[StackMember], configs: Sequence[DataConfig], emit: Listener) -> HeldOut:
    """Open the members' data, decoded at the size of their preprocessing, and find the images that none trained on.

    Raises DataError if the data changed, differ between members, or leave nothing to report on.
    """
    opened = [_opened(member, config, emit) for member, config in zip(members, configs, strict=True)]
    first = opened[0]
    refitted = tuple(member.name for member in members if member.refitted)
    if len({dataset.fingerprint for dataset in opened}) == 1:
        fit = first.train.some([]) if refitted or first.val.samples == first.train.samples else first.val
        return HeldOut(fit, first.test, first, first.selected_on, first.reported_on, True, refitted)
    refs = sorted({member.dataset for member in members})
    if len(refs) > 1 or len({dataset.classes for dataset in opened}) > 1:
        raise DataError(
            f"the members were adapted to different data: {', '.join(refs)}",
            why="one member's held-out image may be another's training image",
            fix="adapt them to the same data set",
        )
    emit(Progress("comparing the members' images", 0, 0))
    keys = _Keys()
    chosen = set().union(*(keys.of(dataset.val) for dataset in opened))
    trained = set().union(*(keys.of(dataset.train) for dataset in opened))
    for member, dataset in zip(members, opened, strict=True):
        trained |= keys.of(dataset.val) if member.refitted else set()
    reported = set.intersection(*(keys.of(dataset.test) for dataset in opened)) - trained - chosen
    report = keys.only(first.test, reported)
    if not len(report):
        raise DataError(
            "no image is left to report on",
            why="every test image of a member was used to train or choose another",
            fix=DIFFERENT,
        )
    included: set[bytes] = set()
    fit = first.val.some([])
    for dataset in opened:
        more = keys.only(dataset.val, chosen - trained - reported - included)
        fit, included = fit.joined(more), included | keys.of(more)
    few = " (those that all members share)" if len(report) < len(first.test) else ""
    return HeldOut(fit, report, first, first.selected_on, first.reported_on + few, False, refitted)


def images_of(stack: Run, emit: Listener) -> HeldOut:
    """The images that a finished stack was fitted and tested on, found from its members."""
    record = stack.finished_record()
    places = [stack.path / MEMBERS / str(number) for number in range(len(record["stack"]["members"]))]
    chosen = again_members(record, places)
    found = held_out(chosen, [DataConfig(**member.record["data_config"]) for member in chosen], emit)
    return replace(found, fit_on=record["stack"]["fit_on"])


def refuse_few(held: HeldOut, command: str) -> None:
    """Raises DataError if a class has fewer than `LEAST` images to fit on."""
    counts = dict(zip(held.val.classes, held.val.class_counts(), strict=True))
    short = {name: count for name, count in counts.items() if count < LEAST}
    if not short:
        return
    name = min(short, key=lambda each: short[each])
    why = f"{len(short)} class(es) have fewer than {LEAST} images that no member was trained on; {name}: {short[name]}"
    fix = f"retrain the members, each time without a fold of the images: {command} --folds 5; or adapt them "
    if held.refitted:
        why += f"; {', '.join(held.refitted)} also trained on validation images"
        fix += "with --refit off"
    elif not held.same:
        why += "; the members have different splits"
        fix += "with one --data-seed"
    else:
        fix += "with a larger --val-fraction"
    raise DataError("there are too few images to fit a combination on", why=why, fix=fix)


def _opened(member: StackMember, config: DataConfig, emit: Listener) -> Dataset:
    options = data_options(member.recipe, config)
    opened = data.open_dataset(member.dataset, options, lambda *progress: emit(Progress(*progress)))
    if opened.fingerprint != member.record["dataset"]["fingerprint"]:
        raise DataError(
            f"the data of {member.run.path} changed since it was trained",
            why="it is no longer known which images it was trained on",
            fix="bring the old data back, or adapt again",
        )
    return opened


class _Keys:
    """Images by a hash of their content, so that copies count as one."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def of(self, part: Part) -> set[bytes]:
        return {self._key(part, index) for index in range(len(part))}

    def only(self, part: Part, wanted: set[bytes]) -> Part:
        return part.some([index for index in range(len(part)) if self._key(part, index) in wanted])

    def _key(self, part: Part, index: int) -> bytes:
        name = part.id(index)
        if name not in self._known:
            self._known[name] = hashlib.blake2b(part.raw(index), digest_size=16).digest()
        return self._known[name]
