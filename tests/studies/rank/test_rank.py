"""Ranking on real features of small networks, and the choice that follows from it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import zoo
from zoo.base.cache import stored
from zoo.errors import DataError, PluginError, RecipeError, TrainingError, WeightsError
from zoo.events import Progress
from zoo.recipes.budget import Budget
from zoo.studies import backbone_list
from zoo.studies.rank import auto, rank

RECIPE = zoo.Recipe(strategy="probe", epochs=1, train_per_class=6, batch_size=32, image_size=64, device="cpu",
                    threads=1, precision="fp32", workers=0)  # fmt: skip
NAMES = ["resnet_nano", "timm/test_byobnet=none"]


@pytest.fixture
def quick(monkeypatch):
    """Plans without timing, so that what fits is known beforehand: 10 s for the first, 1 s for the other."""
    real = rank.prepare

    def prepare(backbone, dataset, recipe, emit):
        cost = (10.0, 10**8, None) if "resnet" in backbone else (1.0, 10**7, None)
        return real(backbone, dataset, replace(recipe, strategy="lp-ft", probe_epochs=5, epochs=5), emit, cost=cost)

    monkeypatch.setattr(rank, "prepare", prepare)


FINETUNE = replace(RECIPE, strategy="lp-ft", probe_epochs=5, epochs=5)


def test_pretrained_features_rank_before_random_ones(quick):
    found = zoo.rank("digits", NAMES, FINETUNE)
    rows = found.record()["ranking"]
    assert [row["backbone"] for row in rows] == ["resnet/resnet_nano", "timm/test_byobnet"]
    assert [row["rank"] for row in rows] == [1, 2] and found.images == 60
    assert rows[0]["best"] > 0.95 and rows[0]["best"] + rows[1]["best"] == pytest.approx(1.0)
    low, high = rows[0]["interval"]
    assert low <= rows[0]["accuracy"] <= high
    assert all(rows[0][score] > rows[1][score] for score in ("log_me", "knn"))
    assert rows[0]["adapting"] == {"epochs": 10, "steps": 10, "seconds": 10.0, "memory_bytes": 10**8, "fits": True}
    assert rows[0]["features"] == 96
    assert "resnet/resnet_nano" in str(found)


def test_features_are_kept_and_the_images_of_the_report_are_not_looked_at(quick):
    stages = []

    def listen(event):
        if isinstance(event, Progress) and event.stage.startswith("features"):
            stages.append(event.stage)

    first = zoo.rank("digits", NAMES[:1], FINETUNE, on_event=listen)
    assert {stage.partition("(")[2] for stage in stages} == {"train images)", "val images)"}
    kept = [entry for entry in stored() if entry.kind == "activations"]
    assert len(kept) == 2 and "resnet/resnet_nano before the classifier on digits" in kept[0].about
    stages.clear()
    again = zoo.rank("digits", NAMES[:1], FINETUNE, on_event=listen)
    assert not stages, "nothing is computed twice"
    assert np.array_equal(again.judged[0].probe.right, first.judged[0].probe.right)
    assert again.judged[0].log_me == first.judged[0].log_me


def test_fewer_images_are_looked_at_where_that_is_asked(quick):
    found = zoo.rank("digits", NAMES[:1], FINETUNE, images=40)
    assert found.images == 40


def test_a_backbone_that_cannot_be_had_is_left_out_with_its_reason(quick, tmp_path):
    found = zoo.rank("digits", ["resnet_nano", "resnet10t"], FINETUNE)
    assert [one.entrant.backbone for one in found.judged] == ["resnet/resnet_nano"]
    (left,) = found.left_out
    assert left.backbone == "resnet/resnet10t" and "cannot be reached" in left.why
    with pytest.raises(WeightsError, match="cannot be reached"):
        zoo.rank("digits", ["resnet10t"], FINETUNE)
    with pytest.raises(DataError):
        zoo.rank(str(tmp_path / "nothing"), ["resnet_nano", "resnet10t"], FINETUNE)


def test_all_that_are_at_hand_are_those_whose_weights_are_here():
    found, left_out = backbone_list.every()
    assert [str(entrant) for entrant in found] == ["resnet/resnet_nano"]
    assert {one.backbone for one in left_out} > {"resnet/resnet18", "vgg/vgg11_bn", "legacy/alexnet"}
    assert {one.why for one in left_out} == {"its weights are not on this machine"}


def test_entrants_are_named_with_weights_of_their_own(tmp_path):
    weights = tmp_path / "mine.safetensors"
    from safetensors.torch import save_file

    from zoo.models import lookup, saved

    save_file(saved.build(lookup.get("resnet_nano"), weights=None, num_classes=3).state_dict(), weights)
    texts = ["resnet_nano", f"resnet_nano={weights}", "resnet18.a1_in1k", "resnet_nano=none"]
    found = backbone_list.named(texts)
    assert [entrant.weights for entrant in found] == ["default", str(weights), "a1_in1k", "none"]
    assert backbone_list.labels(found) == ["resnet_nano-default", "resnet_nano-mine", "resnet18", "resnet_nano-none"]
    with pytest.raises(PluginError, match="no_such"):
        backbone_list.named(["no_such"])
    with pytest.raises(WeightsError, match="there is no weights file"):
        backbone_list.named(["resnet_nano=missing.safetensors"])
    with pytest.raises(RecipeError, match="named twice"):
        backbone_list.named(["resnet_nano", "resnet/resnet_nano"])


@pytest.mark.parametrize(
    ("recipe", "images", "what"),
    [
        (zoo.Recipe(strategy="scratch"), 100, "the strategy scratch uses none"),
        (zoo.Recipe(weights="none"), 100, "each backbone has weights of its own"),
        (zoo.Recipe(), 5, "too few to rank by"),
    ],
)
def test_what_cannot_be_ranked_is_refused(recipe, images, what):
    with pytest.raises(RecipeError, match=what):
        zoo.rank("digits", NAMES, recipe, images=images)


def choose(monkeypatch, budget, ranking_takes=1.0):
    real = rank.ranked
    monkeypatch.setattr(auto, "ranked", lambda *args, **named: replace(real(*args, **named), seconds=ranking_takes))
    return auto.choose("digits", NAMES, FINETUNE, budget, lambda event: None)


def test_the_best_that_fits_is_chosen_and_the_reason_says_what_did_not(quick, monkeypatch):
    monkeypatch.setattr(auto, "_SHARE", 1e6)  # a slow machine ranks both backbones too
    best = choose(monkeypatch, Budget(seconds=6))
    assert best.entrant.backbone == "resnet/resnet_nano"
    assert (best.recipe.probe_epochs, best.recipe.epochs) == (3, 2), "5 of its 10 s are left"
    assert best.reason.startswith("resnet_nano ranks 1 of 2: a linear probe on its frozen features is right on ")
    second = choose(monkeypatch, Budget(seconds=2))
    assert second.entrant.backbone == "timm/test_byobnet" and second.recipe.weights == "none"
    assert "resnet_nano would be better but does not fit: one epoch of each of its 2 phase(s)" in second.reason
    assert second.record["budget"] == "2s" and len(second.record["ranking"]) == 2


def test_ranking_stops_when_its_share_of_the_time_is_spent(quick):
    notes = []
    found = rank.ranked("digits", NAMES, FINETUNE, images=100, budget=None, emit=notes.append, within=0.0)
    assert [one.entrant.short for one in found.judged] == [NAMES[0]], "one is judged whatever it takes"
    (left_out,) = found.left_out
    assert (left_out.backbone, left_out.why) == (NAMES[1], rank.NO_TIME)
    assert any(f"{NAMES[1]} is left out" in getattr(event, "text", "") for event in notes)


@pytest.mark.parametrize(("seconds", "seen"), [(6.0, ["resnet_nano"]), (1.5, ["resnet_nano", "test_byobnet"])])
def test_ranking_goes_on_until_one_fits(quick, monkeypatch, seconds, seen):
    """Ten seconds are planned for the first, two epochs of it at least."""
    monkeypatch.setattr(rank, "time", SimpleNamespace(monotonic=iter(np.arange(0.0, 2.0, 0.001)).__next__))
    found = rank.ranked("digits", NAMES, FINETUNE, images=100, budget=Budget(seconds=seconds),
                           emit=lambda event: None, within=0.0)  # fmt: skip
    assert sorted(one.entrant.short for one in found.judged) == sorted(seen)


def test_a_choice_among_few_says_so(quick, monkeypatch):
    monkeypatch.setattr(auto, "_SHARE", 0.0)
    found = auto.choose("digits", NAMES, FINETUNE, Budget(seconds=600), lambda event: None)
    assert found.reason.endswith("; 1 were not ranked, for lack of time")


@pytest.mark.parametrize("use", [lambda recipe: zoo.rank("digits", NAMES, recipe),
                                 lambda recipe: zoo.compare(NAMES, "digits", recipe),
                                 lambda recipe: zoo.adapt("auto", "digits", recipe, among=NAMES),
                                 lambda recipe: zoo.adapt("resnet_nano", "digits", recipe, budget="9s")])  # fmt: skip
def test_several_methods_are_refused_where_one_is_needed(use):
    with pytest.raises(RecipeError, match="trains with several methods"):
        use(replace(FINETUNE, target="digits", align="none,dann"))


def test_when_nothing_fits_that_is_said(quick, monkeypatch):
    with pytest.raises(TrainingError, match="no backbone can be adapted within"):
        choose(monkeypatch, Budget(seconds=1.1))
    with pytest.raises(TrainingError, match="ranking alone took 5 s of 4s"):
        choose(monkeypatch, Budget(seconds=4), ranking_takes=5.0)


def test_auto_adapts_what_was_chosen_and_says_why_in_the_record(tmp_path):
    run = zoo.adapt("auto", "digits", RECIPE, budget="2steps", among=["resnet_nano"], out=tmp_path / "run")
    record = run.finished_record()
    assert record["backbone"]["name"] == "resnet/resnet_nano" and record["recipe"]["epochs"] == 2
    assert record["chosen"]["budget"] == "2steps"
    assert record["chosen"]["reason"].startswith("resnet_nano ranks 1 of 1")
    assert record["chosen"]["ranking"][0]["adapting"]["fits"] is True
    with pytest.raises(RecipeError, match="among names the backbones that auto chooses from"):
        zoo.adapt("resnet_nano", "digits", RECIPE, among=["resnet_nano"], out=tmp_path / "other")
    with pytest.raises(RecipeError, match="does not fit into"):
        zoo.adapt("resnet_nano", "digits", RECIPE, budget="0.001s", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
