from __future__ import annotations

from dataclasses import replace

import pytest

from zoo.recipes.budget import Budget, fitted
from zoo.recipes.plan import GroupPlan, Pace, PhasePlan, Plan, with_paces
from zoo.recipes.recipe import Recipe

HEAD = (GroupPlan("head", 10, 1, 1e-3, 0.0, "all", "none"),)
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


def test_what_is_paid_once_is_not_paid_again_by_each_epoch():
    """The probe computes activations for 40 s and then trains at next to nothing; an epoch of the rest takes 6 s."""
    paces = {"probe": (Pace(0.1, once=40.0),), "finetune": (Pace(6.0),)}
    plan = with_paces(replace(PLAN, seconds=101.0), paces)
    for seconds, epochs in ((101, 20), (202, 53), (60, 7)):
        cut = fitted(plan, Recipe(), Budget(seconds=seconds))
        shared = [phase.epochs for phase in cut.recipe.expand()]
        assert cut.epochs == epochs and cut.fault is None
        assert cut.seconds == pytest.approx(40 + 0.1 * shared[0] + 6 * shared[1]) and cut.seconds <= seconds
        one_more = [phase.epochs for phase in fitted(plan, Recipe(), Budget(steps=25 * (epochs + 1))).recipe.expand()]
        assert 40 + 0.1 * one_more[0] + 6 * one_more[1] > seconds, "no more would fit"
    fault = fitted(plan, Recipe(), Budget(seconds=30)).fault
    assert fault is not None and "takes about 46 s" in fault.why


def test_few_epochs_keep_few_views_or_none():
    kept = Pace(0.5, once=1.0, view=10.0, views=4)
    assert [kept.seconds(epochs) for epochs in (1, 4, 8)] == [11.5, 43.0, 45.0]
    probe = replace(PLAN, phases=PLAN.phases[:1], seconds=46.0)
    plan = with_paces(probe, {"probe": (Pace(9.0), kept)})
    recipe = Recipe(strategy="probe")
    assert fitted(plan, recipe, Budget(seconds=10)).epochs == 1, "without activations, which would not fit"
    assert fitted(plan, recipe, Budget(seconds=46)).epochs == 10


def test_a_phase_that_the_plan_has_not_got_costs_nothing():
    phases = (replace(PLAN.phases[0], name="head"), replace(PLAN.phases[1], name="finetune"))
    names = [phase.name for phase in Recipe(strategy="gradual").expand()]
    assert names[-1] == "finetune" and len(names) == 4
    phases = (replace(phases[0], name=names[0]), phases[1])
    plan = with_paces(replace(PLAN, phases=phases), {names[0]: (Pace(1.0),), "finetune": (Pace(2.0),)})
    cut = fitted(plan, Recipe(strategy="gradual"), Budget(seconds=30))
    by_name = {phase.name: phase.epochs for phase in cut.recipe.expand()}
    assert cut.seconds == by_name[names[0]] + 2 * by_name["finetune"] <= 30
