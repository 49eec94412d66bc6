"""`zoo compare`, `zoo rank` and `zoo adapt auto`: what is handed on, and what is shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from zoo.recipes.budget import Budget
from zoo.recipes.recipe import Recipe

ROW = {
    "member": "resnet18-lp-ft", "backbone": "resnet/resnet18", "weights": "default", "strategy": "lp-ft",
    "starts_from": "a1_in1k (timm)",
    "accuracy": 0.912, "interval": [0.88, 0.94], "accuracies": {"0": 0.9, "1": 0.924}, "params": 11_200_000,
    "flops": 3_600_000_000, "epochs": 7, "train_seconds": 61.0, "memory_bytes": None, "images_per_second": 88.4,
    "pareto": ["flops", "params"],
}  # fmt: skip
PAIR = {"first": "resnet18-lp-ft", "second": "alexnet-lp-ft", "difference": 0.051, "interval": [-0.01, 0.11],
        "p_adjusted": 0.08, "within_noise": True, "test": "exact McNemar test, one seed"}  # fmt: skip
SUMMARY = {"rows": [ROW], "differences": [PAIR], "failed": [], "notes": ["one seed"]}
FAULT = {
    "member": "vgg11-lp-ft",
    "seed": None,
    "what": "it does not fit into 1m",
    "why": "one epoch takes 4 min",
    "fix": "",
}
JUDGED = {
    "rank": 1, "backbone": "resnet/resnet18", "weights": "/far/away/mine.safetensors", "accuracy": 0.83,
    "interval": [0.8, 0.86], "best": 0.9, "ranks": [1, 2], "log_me": 0.2, "h_score": 9.1, "knn": 0.8,
    "adapting": {"epochs": 4, "steps": 40, "seconds": 50.0, "memory_bytes": 10**8, "fits": True},
}  # fmt: skip
RANKING = {
    "dataset": "photos", "images": 500, "classes": 2, "strategy": "lp-ft", "budget": "10m", "ranking": [JUDGED],
    "left_out": [{"backbone": "vgg/vgg11", "why": "its weights are not on this machine", "fix": ""}], "seconds": 3.0,
}  # fmt: skip


@pytest.fixture
def comparing(api, monkeypatch, tmp_path):
    """What `zoo.api.compare` and `rank` were called with, and what they answer."""
    told = SimpleNamespace(calls=[], summary=SUMMARY)

    def compare(*args, on_event, **named):
        told.calls.append((args, named))
        return SimpleNamespace(path=tmp_path / "c", page=tmp_path / "c" / "comparison.html",
                               table=tmp_path / "c" / "comparison.csv", summary=told.summary)  # fmt: skip

    def rank(*args, on_event, **named):
        told.calls.append((args, named))
        return SimpleNamespace(record=lambda: RANKING)

    monkeypatch.setattr(api, "compare", compare, raising=False)
    monkeypatch.setattr(api, "rank", rank, raising=False)
    return told


def test_compare_hands_on_what_was_typed(zoo_, comparing):
    done = zoo_("compare", "resnet18", "alexnet=runs/a", "--dataset", "photos", "--strategies", "probe, lp-ft",
                "--seeds", 2, "--budget", "10m", "--limit", 50, "--out", "c")  # fmt: skip
    assert done.code == 0
    ((args, named),) = comparing.calls
    assert args == () and named == {
        "backbones": ["resnet18", "alexnet=runs/a"], "dataset": "photos", "recipe": Recipe(limit=50),
        "strategies": ("probe", "lp-ft"), "seeds": 2, "budget": Budget(seconds=600), "out": "c",
    }  # fmt: skip


def test_compare_shows_the_table_and_what_is_noise(zoo_, comparing):
    done = zoo_("compare", "a", "b", "--dataset", "photos")
    lines = done.out.splitlines()
    assert lines[0].split() == ["member", "weights", "accuracy", "interval", "seeds", "parameters", "FLOPs", "epochs",
                                "training", "memory", "images/s", "front"]  # fmt: skip
    shown = " ".join(lines[1].split())
    row = "resnet18-lp-ft a1_in1k (timm) 91.2% 88.0 to 94.0% 2 11.2 M 3.6 G 7 1 min 01 s - 88 FLOPs, parameters"
    assert shown == row
    assert (
        "1 of 1 difference within noise (exact McNemar test, one seed; p adjusted for all, intervals for none):"
        in lines
    )
    assert "  resnet18-lp-ft over alexnet-lp-ft: +5.1 points (-1.0 to +11.0), p 0.080, within noise" in lines
    assert "note: one seed" in lines and "page        c/comparison.html" in lines
    document = zoo_("compare", "a", "b", "--dataset", "photos", "--json").json
    assert document["rows"] == [ROW] and document["comparison"].endswith("/c")


def test_a_p_value_that_would_round_to_0_is_shown_as_less(zoo_, comparing):
    comparing.summary = {**SUMMARY, "differences": [{**PAIR, "p_adjusted": 4e-7, "within_noise": False}]}
    done = zoo_("compare", "a", "b", "--dataset", "photos")
    assert "  resnet18-lp-ft over alexnet-lp-ft: +5.1 points (-1.0 to +11.0), p < 0.001, more than noise" in done.out


def test_a_failed_member_is_shown_and_the_command_fails(zoo_, comparing):
    comparing.summary = {**SUMMARY, "failed": [FAULT]}
    done = zoo_("compare", "a", "b", "--dataset", "photos")
    assert done.code == 1
    assert "failed: vgg11-lp-ft: it does not fit into 1m (one epoch takes 4 min)" in done.out


def test_compare_goes_on_with_nothing_but_the_folder(zoo_, comparing):
    assert zoo_("compare", "--resume", "runs/compare-photos").code == 0
    assert comparing.calls == [((), {"resume": "runs/compare-photos"})]
    done = zoo_("compare", "--resume", "runs/compare-photos", "--limit", 5, "--budget", "1m")
    assert done.code == 2 and "takes no others, but got --budget, --limit" in done.err
    done = zoo_("compare", "--resume", "runs/compare-photos", "--seeds", 3)
    assert done.code == 2 and "takes no others, but got --seeds" in done.err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("compare", "a", "b"), "which images? no data set was named"),
        (("compare", "--dataset", "photos"), "which backbones? none was named"),
        (("compare", "a", "b", "--dataset", "photos", "--budget", "soon"), "a budget is a time or a number of steps"),
        (("compare", "a", "--dataset", "photos", "--strategy", "probe"), "No such option"),
        (("rank", "a"), "which images? no data set was named"),
        (("rank", "a", "--dataset", "photos", "--images", 3), "--images"),
        (("adapt", "auto", "--dataset", "photos", "--budget", "10"), "a budget is a time or a number of steps"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(zoo_, comparing, words, what):
    done = zoo_(*words)
    assert done.code == 2 and what in done.err
    assert comparing.calls == []


def test_rank_shows_the_order_and_who_was_left_out(zoo_, comparing):
    done = zoo_("rank", "resnet18", "--dataset", "photos", "--images", 500, "--budget", "10m", "--strategy", "probe")
    assert comparing.calls == [(("photos", ["resnet18"], Recipe(strategy="probe")),
                                {"images": 500, "budget": Budget(seconds=600)})]  # fmt: skip
    line = next(line for line in done.out.splitlines() if line.startswith("   1"))
    assert line.split() == ["1", "resnet/resnet18=mine.safetensors", "83.0%", "80.0", "to", "86.0%", "90.0%", "1",
                            "to", "2", "0.200", "9.10", "80.0%", "4", "50", "s", "100", "MB", "yes"]  # fmt: skip
    assert "  its weights are not on this machine: vgg/vgg11" in done.out
    assert zoo_("rank", "--dataset", "photos", "--json").json == RANKING
    assert comparing.calls[-1][0][1] == (), "without names: all that are at hand"


def test_auto_hands_on_budget_and_candidates(zoo_, api):
    assert zoo_("adapt", "auto", "--dataset", "photos", "--budget", "90s", "--among", "a", "--among", "b=w").code == 0
    named = api.calls[0][2]
    assert (named["backbone"], named["budget"], named["among"]) == ("auto", Budget(seconds=90), ["a", "b=w"])
    done = zoo_("adapt", "--resume", "runs/x", "--budget", "90s")
    assert done.code == 2 and "--budget" in done.err
