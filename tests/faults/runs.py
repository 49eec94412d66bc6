"""Runs that everything is on in, small enough to be killed many times; and whether one is as it would have been."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.nursery import Ended, Nursery
from tests.faults.points import BETWEEN, OPERATIONS, REFIT
from zoo.recipes.recipe import Recipe

DRAWINGS = "drawings"  # beside the photos: images without labels
_ALL = Recipe(
    strategy="lp-ft",
    probe_epochs=2,
    epochs=2,
    lr=3e-3,
    batch_size=4,
    accumulate=2,
    image_size=32,
    ema=0.8,
    mixup=0.3,
    balance="sampler",
    dropout=0.2,
    patience=1,
    augment="light",
    cache="on",
    cache_views=2,
    recalibrate="on",
    refit="on",
    checkpoint_every="2 steps",
    threads=1,
    workers=0,
    device="cpu",
    seed=11,
)
_PLAIN = {"probe_epochs": None, "probe_lr": None}
RECIPES = {
    "lp-ft": _ALL,
    "probe": replace(_ALL, **_PLAIN, strategy="probe", epochs=3, checkpoint_every="1 step"),
    # Mixed images have no one class for the weights to go by.
    "partial": replace(_ALL, **_PLAIN, strategy="partial", epochs=3, balance="weights", mixup=0.0),
    "gradual": replace(_ALL, strategy="gradual", probe_epochs=1, cache_ram_gb=0.0),  # activations in mapped files
    "finetune": replace(_ALL, **_PLAIN, strategy="finetune", epochs=3, checkpoint_every="3 steps", recalibrate="auto"),
    "scratch": replace(_ALL, **_PLAIN, strategy="scratch", epochs=3, checkpoint_every="1 step", checkpoint_keep=3),
    "dann": replace(_ALL, target=DRAWINGS, align="dann"),
    "fixmatch": replace(_ALL, unlabelled=DRAWINGS, semi="fixmatch", unlabelled_ratio=2, threshold=0.4),
    "soup": replace(_ALL, soup=True, wise="sweep", refit="off"),
}
# What differs from run to run and from clock to clock, and nothing else may.
_OWN = ("id", "created", "seconds", "images_per_second", "files")


def operations(name: str) -> list[str]:
    """What the run of a recipe comes to, of `OPERATIONS`."""
    recipe = RECIPES[name]
    missing = set()
    if recipe.strategy in ("finetune", "scratch"):  # freezes nothing, so there are no activations to keep
        missing |= {"cache build", "refit cache build"}
    if recipe.strategy == "scratch" or recipe.recalibrate != "on":
        missing.add("recalibration")
    if recipe.refit != "on":
        missing |= {operation for operation in OPERATIONS if operation.startswith(REFIT) or operation == BETWEEN}
    if not recipe.soup:
        missing.add("averaging")
    return [operation for operation in OPERATIONS if operation not in missing]


@dataclass(frozen=True)
class Case:
    """One run to spoil."""

    folder: Path  # what the process sees as its own disk: the run and the cache
    recipe: Path
    photos: Path
    whole: Path  # the same run without a fault
    children: Nursery

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self, children: Nursery | None = None, *more: object, **fault: Any) -> Ended:
        words = ("adapt", "resnet_nano", "--dataset", self.photos, "--recipe", self.recipe, "--out", "run", *more)
        return (children or self.children).run(self.folder, *words, **fault)

    def resume(self, children: Nursery | None = None, *more: object, **fault: Any) -> Ended:
        return (children or self.children).run(self.folder, "adapt", "--resume", "run", *more, **fault)

    def go_on(self, children: Nursery | None = None, **fault: Any) -> Ended:
        """What a person does after an accident: go on where there is a run, and start it where there is none."""
        there = (self.run / "run.json").exists()
        return self.resume(children, **fault) if there else self.start(children, **fault)

    def points(self) -> list[dict[str, Any]]:
        """Where the processes went so far."""
        return _lines(self.folder.with_name(f"{self.folder.name}.points"))

    def assert_as_without(self, *, states: bool = True) -> None:
        """The run is what it is without a fault: weights, optimizer state, metrics, record, and not a file more.

        Args:
            states: Whether the state at the end of every epoch was written down; a process of its own writes none.
        """
        assert _names(self.run) == _names(self.whole)
        for name in ("model.safetensors", "verify.safetensors"):
            assert (self.run / name).read_bytes() == (self.whole / name).read_bytes(), name
        mine, theirs = (_lines(folder / "metrics.jsonl") for folder in (self.run, self.whole))
        assert [_timeless(line) for line in mine] == [_timeless(line) for line in theirs]
        mine_record, their_record = (json.loads((folder / "run.json").read_text()) for folder in (self.run, self.whole))
        for record in (mine_record, their_record):
            for key in _OWN:
                del record[key]
            # Measured anew by a process that starts over.
            for key in ("seconds", "memory_bytes", "data_wait"):
                del record["plan"][key]
            # That images could not be kept decoded is worth a note, and changes nothing.
            for notes in (record["plan"]["notes"], record["dataset"]["notes"]):
                notes[:] = [note for note in notes if not note.startswith("no decoded store: ")]
        assert mine_record == their_record
        expected = {tuple(line["at"]): line for line in _lines(self.whole.parent.with_name("work.states"))}
        found = {tuple(line["at"]): line for line in _lines(self.folder.with_name(f"{self.folder.name}.states"))}
        assert found.keys() == expected.keys() if states else found.keys() <= expected.keys()
        for at, line in found.items():
            assert line == expected[at], f"weights, average or optimizer differ at {at}"


class Cases:
    """Makes cases; the run without a fault is made once for each strategy."""

    def __init__(self, root: Path, photos: Path, children: Nursery) -> None:
        self._root, self._photos, self._children = root, photos, children
        self._wholes: dict[str, Case] = {}

    def make(self, folder: Path, strategy: str) -> Case:
        whole = self.whole(strategy)
        work = folder / "work"
        work.mkdir()
        return replace(whole, folder=work, whole=whole.run)

    def whole(self, strategy: str) -> Case:
        if strategy not in self._wholes:
            home = self._root / strategy
            (home / "work").mkdir(parents=True)
            recipe = home / "recipe.yaml"
            recipe.write_text(self._placed(RECIPES[strategy]).to_yaml())
            case = Case(home / "work", recipe, self._photos, home / "work" / "run", self._children)
            done = case.start()
            assert done.code == 0, done.err
            self._wholes[strategy] = case
        return self._wholes[strategy]

    def _placed(self, recipe: Recipe) -> Recipe:
        """The recipe, its images without labels named so that a process elsewhere finds them."""
        names = {name: getattr(recipe, name) for name in ("target", "unlabelled")}
        return replace(recipe, **{name: str(self._photos.with_name(value)) for name, value in names.items() if value})


def one_error(done: Ended, *words: str) -> None:
    """The process ended with one clear message that has these words."""
    assert done.code == 1, (done.code, done.err)
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err and "bug in zoo" not in done.err, done.err
    for word in words:
        assert word in done.err, (word, done.err)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "seconds"}
