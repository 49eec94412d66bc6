from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zoo.errors import RecipeError
from zoo.recipes.plan import Plan
from zoo.recipes.planner import GroupFacts, make_plan
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import PRESETS, Phase

GROUPS = (
    GroupFacts("stem", params=100, undecayed=10, has_norm=True),
    GroupFacts("middle", params=400, undecayed=20, has_norm=True),
    GroupFacts("neck", params=50, undecayed=50, has_norm=False),
    GroupFacts("head", params=40, undecayed=4, has_norm=False),
)


def plan(recipe: Recipe, groups: tuple[GroupFacts, ...] = GROUPS, norm: str = "live") -> Plan:
    return make_plan(recipe, groups, backbone="kit/net", dataset="photos", steps_per_epoch=7, norm=norm)


def phases(found: Plan) -> list[tuple[str, int, list[str]]]:
    """Name, epochs and trained groups of each phase."""
    return [(phase.name, phase.epochs, list(phase.rates)) for phase in found.phases]


EVERY = ["stem", "middle", "neck", "head"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("probe", [("probe", 5, ["head"])]),
        ("partial", [("partial", 5, ["neck", "head"])]),
        ("finetune", [("finetune", 5, EVERY)]),
        ("scratch", [("scratch", 5, EVERY)]),
        ("lp-ft", [("probe", 2, ["head"]), ("finetune", 5, EVERY)]),
        (
            "gradual",
            [
                ("probe", 2, ["head"]),
                ("unfreeze-1", 2, ["neck", "head"]),
                ("unfreeze-2", 2, ["middle", "neck", "head"]),
                ("finetune", 5, EVERY),
            ],
        ),
    ],
)
def test_each_strategy_trains_the_groups_it_is_named_for(
    strategy: str, expected: list[tuple[str, int, list[str]]]
) -> None:
    found = plan(Recipe(strategy=strategy, epochs=5, probe_epochs=2))
    assert phases(found) == expected
    assert [phase.steps for phase in found.phases] == [epochs * 7 for _, epochs, _ in expected]
    assert found.steps == 7 * sum(epochs for _, epochs, _ in expected)


def test_epochs_of_the_head_alone_may_be_shorter() -> None:
    recipe = Recipe(strategy="lp-ft", probe_epochs=2, epochs=3)
    found = make_plan(
        recipe, GROUPS, backbone="kit/net", dataset="photos", steps_per_epoch=7, head_steps=4, norm="live"
    )
    assert [(phase.steps_per_epoch, phase.steps) for phase in found.phases] == [(4, 8), (7, 21)]


def test_a_method_that_never_takes_part_is_refused() -> None:
    phases = (Phase("one", 2, 1e-3, "head"),)
    with pytest.raises(RecipeError, match="no phase trains anything but the head"):
        plan(Recipe(phases=phases, target="sketches", align="dann"))
    assert plan(Recipe(phases=phases, target="sketches", align="adabn")).steps == 14


def test_the_head_has_the_asked_rate_and_earlier_groups_have_less() -> None:
    (phase,) = plan(Recipe(strategy="finetune", lr=0.8, lr_decay=0.5)).phases
    assert phase.rates == {"stem": 0.1, "middle": 0.2, "neck": 0.4, "head": 0.8}


def test_a_group_with_a_rate_of_its_own_keeps_it() -> None:
    (phase,) = plan(Recipe(strategy="finetune", lr=0.8, lr_decay=0.5, group_lr={"middle": 0.03})).phases
    assert phase.rates == {"stem": 0.1, "middle": 0.03, "neck": 0.4, "head": 0.8}


def test_a_group_with_rate_zero_is_frozen_wholly() -> None:
    (phase,) = plan(Recipe(strategy="finetune", group_lr={"middle": 0})).phases
    group = phase.groups[1]
    assert group.frozen and group.norm == "frozen" and group.weight_decay == 0 and group.lr == 0
    assert phase.frozen == {"middle"}


def test_no_decay_between_groups_leaves_the_head_alone() -> None:
    (phase,) = plan(Recipe(strategy="finetune", lr_decay=0)).phases
    assert list(phase.rates) == ["head"]


@pytest.mark.parametrize(("asked", "norm"), [("live", "live"), ("fixed", "fixed")])
def test_norm_modes_follow_freezing_and_statistics(asked: str, norm: str) -> None:
    (phase,) = plan(Recipe(strategy="partial", train_from="middle"), norm=asked).phases
    assert [group.norm for group in phase.groups] == ["frozen", norm, "none", "none"]
    assert phase.fixed_norm == ({"middle"} if norm == "fixed" else frozenset())


def test_frozen_groups_count_for_nothing_that_trains() -> None:
    (phase,) = plan(Recipe(strategy="partial")).phases
    assert phase.trained_params == 90
    assert [group.weight_decay > 0 for group in phase.groups] == [False, False, True, True]


@pytest.mark.parametrize(
    ("boundary", "first"), [("middle", "middle"), ("all", "stem"), ("head-2", "middle"), ("head-99", "stem")]
)
def test_the_boundary_is_a_name_or_a_distance(boundary: str, first: str) -> None:
    (phase,) = plan(Recipe(strategy="partial", train_from=boundary)).phases
    assert next(iter(phase.rates)) == first


def test_gradual_skips_steps_that_a_shallow_backbone_has_no_groups_for() -> None:
    shallow = (GROUPS[0], GROUPS[3])
    found = plan(Recipe(strategy="gradual", epochs=3, probe_epochs=1), shallow)
    assert phases(found) == [("probe", 1, ["head"]), ("finetune", 3, ["stem", "head"])]


def test_no_probe_epochs_means_no_probe() -> None:
    assert [phase.name for phase in plan(Recipe(strategy="lp-ft", probe_epochs=0)).phases] == ["finetune"]
    assert [phase.name for phase in plan(Recipe(strategy="gradual", probe_epochs=0)).phases] == ["finetune"]


def test_phases_in_full_are_taken_as_they_are() -> None:
    written = (Phase("warm", 1, 0.1, "neck"), Phase("rest", 2, 0.01, "stem", 0.1))
    found = plan(Recipe(phases=written))
    assert phases(found) == [("warm", 1, ["neck", "head"]), ("rest", 2, EVERY)]
    assert found.phases[1].rates["stem"] == pytest.approx(1e-5)


def test_defaults_are_the_presets() -> None:
    (phase,) = plan(Recipe(strategy="finetune")).phases
    preset = PRESETS["finetune"]
    assert phase.epochs == preset.epochs and phase.rates["head"] == preset.lr


def test_an_unknown_boundary_names_the_groups() -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Recipe(strategy="partial", train_from="layer9"))
    assert caught.value.what == "kit/net has no layer group named 'layer9'"
    assert "stem, middle, neck, head; or use all, or head-N" in caught.value.fix


def test_a_rate_for_an_unknown_group_names_the_groups() -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Recipe(group_lr={"layer9": 1e-3}))
    assert caught.value.what == "kit/net has no layer group named 'layer9'"
    assert caught.value.fix == "its groups are, input to head: stem, middle, neck, head"


def test_a_rate_for_a_group_that_no_phase_trains_is_refused_rather_than_ignored() -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Recipe(strategy="partial", group_lr={"stem": 1e-3}))
    assert caught.value.what == "a rate is given for stem, but no phase trains it"
    assert plan(Recipe(strategy="lp-ft", group_lr={"stem": 1e-3})).phases[1].rates["stem"] == 1e-3


def test_a_phase_in_which_nothing_trains_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Recipe(strategy="probe", group_lr={"head": 0}))
    assert caught.value.what == "nothing trains in probe"


def test_a_plan_survives_its_own_record() -> None:
    found = replace(plan(Recipe()), seconds=12.5, memory_bytes=3 << 20, data_wait=2.5)
    record = json.loads(json.dumps(found.record()))
    assert Plan.from_record(record) == found
    assert record["phases"][0]["groups"][0].keys() >= {"name", "params", "lr", "weight_decay", "frozen", "norm"}


def test_printing_a_plan_shows_every_group_of_every_phase() -> None:
    text = str(replace(plan(Recipe(lr=1e-3, epochs=3, probe_epochs=2)), seconds=12.4, memory_bytes=3 << 20))
    assert "probe: 2 epochs, 14 steps, one-cycle" in text and "finetune: 3 epochs, 21 steps" in text
    assert text.count("middle") == 2 and "0.001" in text
    assert "about 12 s of training, about 3.15 MB of memory" in text
    waiting = str(replace(plan(Recipe()), seconds=12.4, memory_bytes=3 << 20, data_wait=4.0))
    assert "about 12 s of training (32% of it waiting for images)" in waiting


def test_a_record_says_frozen_and_what_is_adapted_comes_back() -> None:
    whole = plan(Recipe(strategy="partial"))
    (phase,) = whole.phases
    record = whole.record()
    groups = record["phases"][0]["groups"]
    assert [group["frozen"] for group in groups] == [True, True, False, False]
    assert list(groups[0]) == ["name", "params", "undecayed", "lr", "weight_decay", "frozen", "norm"]
    assert Plan.from_record(record).phases == whole.phases
    adapted = replace(phase, groups=(replace(phase.groups[0], train="adapter"), *phase.groups[1:]))
    assert adapted.adapted == {"stem"} and adapted.frozen == {"middle"}
    again = replace(whole, phases=(adapted,))
    assert Plan.from_record(again.record()).phases == again.phases
