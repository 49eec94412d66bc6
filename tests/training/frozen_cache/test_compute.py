"""What activations are known by, and what happens to them when processes meet or die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pictures import make_images
from tests.runs.photos import CHOICES, make_photos
from zoo.base import cache
from zoo.events import ignore
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import Prepared, prepare
from zoo.training.frozen_cache.compute import FeatureCache
from zoo.training.frozen_cache.fold_norms import faithful

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


def prepared(photos: Path, **choices: Any) -> Prepared:
    recipe = Recipe(**{**CHOICES, "cache": "on", **choices})
    return prepare("resnet_nano", str(photos), recipe, ignore, cost=(0.0, 0, 0.0))


def keeper(ready: Prepared, epochs: range = range(1)) -> FeatureCache:
    (option,) = ready.caches.values()
    return FeatureCache(ready.loaded, ready.work, option.cut, option.layout, ready.plan.phases[0].frozen, epochs)


def names(ready: Prepared, folded: bool = True, epochs: range = range(1)) -> list[str]:
    return [file.path.name for file in keeper(ready, epochs).files(folded)]


def test_what_activations_depend_on_is_in_their_name(photos: Path, tmp_path: Path) -> None:
    ready = prepared(photos)
    before = names(ready)
    fit, choose = before

    def other(change: Callable[[], None] = lambda: None, **choices: Any) -> tuple[bool, bool]:
        """Whether another name came of it, for the training and for the validation images."""
        changed = prepared(photos, **choices) if choices else ready
        change()
        found = names(changed)
        return found[0] != fit, found[1] != choose

    # Another head, another recipe above the frozen part: the same activations.
    assert other(lr=0.1, epochs=7, dropout=0.5, label_smoothing=0.0, batch_size=4, ema=0.9) == (False, False)
    assert names(ready, folded=False) != before
    assert other(image_size=40) == (True, True)
    assert other(augment="light") == (True, False)
    assert other(strategy="probe") == (True, True), "split elsewhere"
    assert other(limit=24) == (True, True), "other images train"
    assert other(precision="bf16") == (True, True)
    # With augmentation an image looks different in each epoch and with each seed.
    light = prepared(photos, augment="light")
    two = names(light, epochs=range(2))
    assert len(set(two)) == 3 and names(light, epochs=range(1, 2))[0] == two[1]
    assert names(prepared(photos, augment="light", seed=1), epochs=range(2))[0] != two[0]
    assert names(prepared(photos, seed=1)) == before, "without it the seed changes only the head"

    newer = replace(ready, loaded=replace(ready.loaded, spec=replace(ready.loaded.spec, version="99.0")))
    assert not set(names(newer)) & set(before), "another version of the plugin may compute otherwise"

    images = make_photos(tmp_path)
    assert names(prepared(images)) == before, "the same images elsewhere"
    make_images(tmp_path / "more", {"train": {"amber": 14}})
    (tmp_path / "more/train/amber/013.png").replace(images / "train/amber/000.png")  # under an old name
    assert names(prepared(images)) != before

    def nudge(name: str) -> Callable[[], None]:
        def change() -> None:
            with torch.no_grad():
                ready.loaded.model.state_dict()[name].add_(0.001)

        return change

    assert other(nudge("fc.weight")) == (False, False)
    assert other(nudge("conv1.0.weight")) == (True, True)
    before = fit, choose = names(ready)
    assert other(nudge("bn1.running_mean")) == (True, True)


@pytest.mark.parametrize(
    "made_by", ["PIL.__version__", "zoo.data.store.decode.VERSION", "zoo.data.batches.maker.VERSION"]
)
def test_other_makers_of_pixels_make_other_activations(
    photos: Path, monkeypatch: pytest.MonkeyPatch, made_by: str
) -> None:
    ready = prepared(photos)
    before = names(ready)
    monkeypatch.setattr(made_by, "other")
    assert not set(names(ready)) & set(before)


def test_what_is_there_is_neither_computed_nor_tried_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(photos, augment="light")
    assert keeper(ready, range(2)).missing() == 2 * 33 + 12
    keeper(ready, range(1)).load(True, ignore, lambda: None)
    assert keeper(ready, range(2)).missing() == 33, "one view is there, and the validation images"
    monkeypatch.setattr(FeatureCache, "_folding_is_faithful", lambda self: pytest.fail("there is something to go by"))
    assert keeper(ready, range(2)).folds()


def test_folding_is_left_out_where_it_changes_too_much() -> None:
    exact = torch.randn(8, 4, 3, 3)
    noise = torch.randn_like(exact)
    for folded, plain, wanted in (
        (exact + 1e-5 * noise, exact, True),
        (exact + 0.01 * noise, exact, False),
        (exact + 0.012 * noise, exact + 0.01 * noise, True),  # the precision costs that much anyway
        (exact + 0.02 * noise, exact + 0.01 * noise, False),
        (torch.full_like(exact, torch.nan), exact, False),
    ):
        assert faithful(folded, plain, exact) is wanted


class Builder:
    """One process of `tests.runs.builder`."""

    def __init__(self, photos: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.runs.builder", str(photos)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload]
        self.said = ""

    def listen(self) -> str:
        self.said = str(self.process.stdout.readline().strip())
        return self.said

    def go_on(self) -> str:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.listen()

    def finish(self) -> list[str]:
        """Let it run to its end; the last line's words."""
        said = self.said or self.listen()
        while said == "ready":
            said = self.go_on()
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return said.split()


@pytest.mark.heavy
def test_two_processes_at_once_and_a_killed_one_leave_the_right_activations(photos: Path) -> None:
    one, two, killed = Builder(photos), Builder(photos), Builder(photos)
    for builder in (one, two, killed):  # all three are about to compute their first chunk
        assert builder.listen() == "ready"
    for builder in (one, killed, two, killed):
        assert builder.go_on() == "ready"
    killed.process.kill()
    killed.process.communicate(timeout=60)
    mine, other = one.finish(), two.finish()
    assert mine == other and mine[1] == "computed"
    kinds = sorted(entry.kind for entry in cache.stored() if entry.kind != "images")
    assert kinds == ["activations", "activations", "unfinished"]
    left = [entry.path for entry in cache.stored() if entry.kind == "unfinished"]
    assert Builder(photos).finish() == [mine[0], "found"]
    assert all(path.exists() for path in left), "it may be another's that is still at work"
