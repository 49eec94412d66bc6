"""Terms beside the supervised loss, on a real backbone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.pictures import four
from zoo.data import Batch, Unlabelled
from zoo.errors import RecipeError
from zoo.models import lookup, saved
from zoo.models.features import look, width
from zoo.recipes import methods
from zoo.recipes.plan import GroupPlan, PhasePlan, Plan
from zoo.recipes.recipe import Recipe
from zoo.training.losses import discover
from zoo.training.losses.combined import Combined, TermSizes
from zoo.training.losses.objective import with_objective
from zoo.training.losses.supervised import Supervised

GENERATOR = torch.Generator().manual_seed(0)
BATCH = Batch(torch.randn(4, 3, 32, 32, generator=GENERATOR), torch.tensor([0, 1, 2, 0]), torch.arange(4))
VIEWS = tuple(torch.randn(6, 3, 32, 32, generator=GENERATOR) for _ in range(2))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return saved.build(lookup.get("resnet_nano"), weights=None, num_classes=3)


def objective(model: nn.Module, align: str = "none", semi: str = "none", **weights: float) -> Combined:
    sizes = TermSizes(width(model, (3, 32, 32), torch.device("cpu")), 3, 6, 0.3)
    recipe = Recipe(strategy="finetune", target="elsewhere", align=align, semi=semi, **weights)
    torch.manual_seed(1)
    return Combined(Supervised(3), [(make(sizes), weight * make.weight) for make, weight in discover.chosen(recipe)], 1)


def phase(*frozen: bool) -> PhasePlan:
    groups = (
        GroupPlan(str(place), 1, 0, 0.1, 0.0, "none" if still else "all", "none") for place, still in enumerate(frozen)
    )
    return PhasePlan("any", 1, 1, "constant", 0.0, tuple(groups))


def test_every_method_is_one_file_and_trains_the_network(model: nn.Module) -> None:
    assert {"cdan", "coral", "daan", "dann", "mcc", "mmd"} <= set(methods.ALIGNMENT)  # and whatever is added
    assert {"fixmatch", "flexmatch", "pseudo"} <= set(methods.SEMI)
    for kind, name in [*(("align", name) for name in methods.ALIGNMENT), *(("semi", name) for name in methods.SEMI)]:
        made = objective(model, **{kind: name})
        views = VIEWS[: made.unlabelled(phase(False, False))]
        model.zero_grad()
        found = made(model.train(), replace(BATCH, unlabelled=Unlabelled(views, torch.arange(6))), 0.5)
        known = found.parts["supervised"].detach()
        torch.testing.assert_close(found.total.detach(), known + found.parts[name].detach())
        found.parts[name].backward()
        assert model.conv1[0].weight.grad is not None and model.conv1[0].weight.grad.abs().sum() > 0, name
        assert all(tensor.grad is not None for tensor in made.parameters()), "or processes would wait for one another"


MEANS = """
from zoo.training.losses.objective import Loss
from zoo.training.losses.combined import Term


class Means(Term):
    name = "means"
    whole = True

    def forward(self, inputs):
        apart = inputs.source.features.mean(0) - inputs.views[0].features.mean(0)
        return Loss(apart.square().sum())


METHOD = Means
"""


FOCAL = """

def focal(logits, shares):
    logs = logits.log_softmax(1)
    return -(shares * (1 - logs.exp()) ** 2 * logs).sum(1)


LOSSES["focal"] = focal
"""


def test_a_file_adds_a_method_and_a_function_a_loss(tmp_path: Path) -> None:
    shutil.copytree(Path(zoo.__file__).parent, tmp_path / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(zoo.__file__).parent.parent / "registry.yaml", tmp_path)
    (tmp_path / "zoo" / "training" / "losses" / "alignment" / "means.py").write_text(MEANS)
    kind, facts = (tmp_path / "zoo" / "tasks" / name for name in ("single_label.py", "schema.py"))
    kind.write_text(kind.read_text() + FOCAL)
    row = '          pipeline="single_label_classification"),'
    assert row in facts.read_text()
    facts.write_text(facts.read_text().replace(row, row.replace("pipeline", 'losses=("focal",), pipeline')))
    default = [sys.executable, "-c", "import zoo; print(zoo.Recipe().label_loss)"]
    assert subprocess.check_output(default, cwd=tmp_path, text=True) == "bce\n", "one more loss changes no default"
    photos = four(tmp_path / "photos", 6)
    typed = (
        f"adapt resnet_nano --dataset {photos} --target {photos} --align means --label-loss focal "
        "--strategy finetune --epochs 1 --image-size 32 --lr 1e-3 --out run"
    )
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *typed.split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("means" in line["parts"] for line in steps if line["event"] == "step")
    assert "aligned by <b>means</b>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_without_images_beside_it_is_the_supervised_loss(model: nn.Module) -> None:
    model.eval()
    found = objective(model, "dann")(model, BATCH, 0.5)
    assert found.parts == {} and torch.equal(found.total, Supervised(3)(model, BATCH, 0.5).total)


def test_terms_are_weighted_and_go_together(model: nn.Module) -> None:
    made = objective(model, "mcc", "fixmatch", align_weight=0.5, semi_weight=2.0)
    assert made.name == "mcc and fixmatch" and made.unlabelled(phase(False, False)) == 2
    found = made(model.eval(), replace(BATCH, unlabelled=Unlabelled(VIEWS, torch.arange(6))), 0.5)
    parts = found.parts
    torch.testing.assert_close(found.total, parts["supervised"] + 0.5 * parts["mcc"] + 2.0 * parts["fixmatch"])


def test_frozen_features_are_not_aligned_and_may_be_kept(model: nn.Module) -> None:
    made = objective(model, "dann")
    assert not made.trains(phase(True, False)) and made.unlabelled(phase(True, False)) == 0
    assert made.needs_images(phase(True, False)) == ""
    assert not made.complete(phase(True, False)) and made.complete(phase(False, False))
    plan = with_objective(Plan("a", "b", (phase(True, False), phase(False, False), phase(True, False))), made, 4)
    assert [each.eligible for each in plan.phases] == [False, True, True], "aligned features stay aligned"
    assert Plan.from_record({**plan.record(), "seconds": None, "memory_bytes": None}) == plan
    assert made.needs_images(phase(True, False, False)) == "dann needs unlabelled images too"


def test_the_features_are_what_goes_into_the_classifier(model: nn.Module) -> None:
    model.eval()
    found = look(model, BATCH.images)
    expected = model.forward_head(model.forward_features(BATCH.images), pre_logits=True)
    torch.testing.assert_close(found.features, expected)
    assert torch.equal(found.logits, model(BATCH.images))
    assert not model.get_classifier()._forward_pre_hooks, "nothing is left behind"


def test_a_network_that_hides_its_classifier_is_refused() -> None:
    with pytest.raises(RecipeError, match="does not say what its classifier is"):
        look(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), BATCH.images)
