from __future__ import annotations

from dataclasses import replace

import pytest

from zoo.adaptation.fitting import fitted
from zoo.budget import Budget
from zoo.planning import GroupPlan, PhasePlan, Plan
from zoo.recipe import Recipe

HEAD = (GroupPlan("head", 10, 1, 1e-3, 0.0, False, "none"),)
PLAN = Plan(
    "resnet/tiny",
    "digits",
    (PhasePlan("probe", 10, 25, "one-cycle", 0.25, HEAD), PhasePlan("finetune", 10, 25, "one-cycle", 0.25, HEAD)),
    seconds=100.0,
    memory_bytes=1_000,
)


def test_without_a_budget_nothing_changes():
    cut = fitted(PLAN, Recipe(), None)
    assert (cut.recipe, cut.epochs, cut.steps, cut.seconds, cut.memory_bytes) == (Recipe(), 20, 500, 100.0, 1_000)
    assert cut.fault is None


@pytest.mark.parametrize(
    ("budget", "epochs", "seconds"),
    [(Budget(seconds=100), 20, 100), (Budget(seconds=52), 10, 50), (Budget(seconds=300), 60, 300),
     (Budget(steps=500), 20, 100), (Budget(steps=130), 5, 25), (Budget(steps=140), 6, 30)],
)  # fmt: skip
def test_epochs_follow_the_budget_and_the_estimate_follows_them(budget, epochs, seconds):
    cut = fitted(PLAN, Recipe(), budget)
    assert (cut.epochs, cut.steps, cut.seconds, cut.fault) == (epochs, 25 * epochs, pytest.approx(seconds), None)
    assert sum(phase.epochs for phase in cut.recipe.expand()) == epochs


def test_what_leaves_no_epoch_for_each_phase_does_not_fit():
    for budget, takes in ((Budget(seconds=5), "about 10 s"), (Budget(steps=25), "50 steps")):
        fault = fitted(PLAN, Recipe(), budget).fault
        assert fault is not None
        assert fault.what == f"resnet/tiny does not fit into {budget}"
        assert fault.why == f"one epoch of each of its 2 phase(s) takes {takes}"
        assert "--budget" in fault.fix
    assert fitted(PLAN, Recipe(), Budget(seconds=9.5)).fault is None, "an estimate is no better than that"
    probe = replace(PLAN, phases=PLAN.phases[:1], seconds=30.0)
    fault = fitted(probe, Recipe(strategy="probe"), Budget(seconds=1)).fault
    assert fault is not None and fault.why == "one epoch takes about 3 s"
