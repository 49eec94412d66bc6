"""What folds are cut from, and alike for every member; real ones: test_stack.py."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.errors import DataError, RecipeError
from zoo.runs.stacked.combine import MemberOutputs
from zoo.studies.ensemble import folds


def part(*counts: int) -> SimpleNamespace:
    return SimpleNamespace(class_counts=lambda: list(counts), classes=("amber", "blue"))


def found(fit: SimpleNamespace, choose: SimpleNamespace, *, cut: bool) -> SimpleNamespace:
    return SimpleNamespace(same=True, val=choose, dataset=SimpleNamespace(train=fit, val=choose, val_cut=cut))


def member(place: int, **choices: object) -> SimpleNamespace:
    recipe = replace(zoo.Recipe(), **choices)
    record = {"backbone": {"name": f"net-{place}"}}
    return SimpleNamespace(name=f"m{place}", record=record, recipe=recipe, dataset="d", run=SimpleNamespace(path="r"))


def test_images_that_were_given_to_choose_by_are_in_no_fold():
    folds.refuse_other_images([member(0)], found(part(6, 20), part(4, 5), cut=True))
    with pytest.raises(DataError, match="too few images to fit a combination on") as caught:
        folds.refuse_other_images([member(0)], found(part(6, 20), part(40, 50), cut=False))
    assert caught.value.why.startswith("the class amber has 6 training images in all")


def test_a_soup_of_runs_has_no_training_to_do_again():
    soup = member(0)
    soup.record["soup"] = {"candidates": [{"run": "runs/a"}, {"run": "runs/b"}]}
    with pytest.raises(RecipeError, match="was put together from runs") as caught:
        folds.refuse_other_images([soup], found(part(60, 60), part(0, 0), cut=True))
    assert caught.value.fix.startswith("name its runs instead")
    own = member(0)
    own.record["soup"] = {"candidates": [{"epoch": 3}, {"epoch": 5}]}  # of its own epochs: zoo adapt --soup
    folds.refuse_other_images([own], found(part(60, 60), part(0, 0), cut=True))


def test_members_with_seeds_of_their_own_share_their_folds(tmp_path, monkeypatch):
    recipes = []

    def start(backbone, dataset, recipe, path, emit):
        recipes.append(recipe)
        return SimpleNamespace(path=path, recipe=recipe)

    def about(run, one, *rest):
        logs = torch.zeros(1, 2, 2, dtype=torch.float64)
        return MemberOutputs(logs, (), torch.tensor([0, 1])), [f"cut {run.recipe.cut_seed}, fold {run.recipe.fold}"]

    monkeypatch.setattr(folds.train, "start", start)
    monkeypatch.setattr(folds, "_about_its_fold", about)
    chosen = [member(0, seed=3), member(1, seed=4)]
    said = folds.out_of_fold(chosen, 2, tmp_path, ("a", "b"), None, lambda event: None)
    assert said.logs.shape == (2, 4, 2)
    assert [(one.seed, one.cut_seed, one.fold) for one in recipes] == [(3, 3, "1/2"), (4, 3, "1/2"),
                                                                       (3, 3, "2/2"), (4, 3, "2/2")]  # fmt: skip
