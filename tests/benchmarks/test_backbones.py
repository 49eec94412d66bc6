"""What the measurements of `zoo compare` and `zoo rank` say: their arithmetic and tables, on made-up results."""

from __future__ import annotations

import zipfile
from types import SimpleNamespace

import pytest

from benchmarks import compare_backbones, rank
from zoo.runs.run_folder import Run

MACHINE = {"cpu": "a cpu", "cores": 2, "packages": {"torch": "2.0"}, "when": "2026-01-02T03:04:05"}


def row(name: str, accuracy: float, **others: float) -> dict:
    return {"backbone": name, "weights": "default", "accuracy": accuracy, "log_me": 0.0, "h_score": 0.0, "knn": 0.0,
            "seconds": 2.0, **others}  # fmt: skip


def test_an_order_that_is_right_has_tau_one_and_loses_nothing():
    measured = {("a", "default"): 0.9, ("b", "default"): 0.8, ("c", "default"): 0.5}
    found = rank.agreement(measured, [row("a", 0.7, knn=0.1), row("b", 0.6, knn=0.2), row("c", 0.2, knn=0.3)])
    assert found["tau"]["accuracy"] == pytest.approx(1.0) and found["tau"]["knn"] == pytest.approx(-1.0)
    assert found["lost"] == 0 and found["backbones"] == 3 and found["seconds"] == 6.0
    wrong = rank.agreement(measured, [row("b", 0.7), row("a", 0.6), row("c", 0.2)])
    assert wrong["lost"] == pytest.approx(0.1) and 0 < wrong["tau"]["accuracy"] < 1


def test_few_backbones_are_remarked_on():
    measured = {("a", "default"): 0.9, ("b", "default"): 0.8}
    found = rank.agreement(measured, [row("a", 0.7), row("b", 0.6)])
    text = rank.table({"machine": MACHINE, "rows": [{"dataset": "cifar10", "strategy": "lp-ft", **found}]})
    assert "| cifar10, lp-ft | 2 (too few for an order to mean much) | 1.00 |" in text


def test_the_table_names_whose_weights_they_are_and_what_is_noise():
    member = {"member": "a-lp-ft", "accuracy": 0.9, "interval": [0.85, 0.95], "accuracies": {"0": 0.9}, "flops": 2e6,
              "train_seconds": 10.0, "memory_bytes": None, "images_per_second": 50.0, "pareto": ["flops"]}  # fmt: skip
    pair = {"first": "a-lp-ft", "second": "b-lp-ft", "within_noise": True}
    scratch = {"backbone": "a", "params": 1000, "accuracy": 0.4, "n": 3000, "rate": 3e-4}
    asked = {"epochs": 4, "source_limit": 10000, "batch_size": 64, "budget": "1m", "limit": 5000, "report": 2000,
             "threads": 1}  # fmt: skip
    summary = {"rows": [member], "differences": [pair], "failed": [{"member": "c-lp-ft", "what": "no memory"}]}
    found = {"machine": MACHINE, "scratch": [scratch], "comparisons": {"cifar10.zip": summary}, **asked}
    text = compare_backbones.table(found)
    assert "All weights are ours, none are ImageNet's" in text
    assert "on at most 10,000 images" in text and "4 epochs, batches of 64" in text
    assert "1m of training for each run, on at most 5,000 images, 1 thread(s) each; " in text
    assert "accuracy of 3,000, %" in text and "| `a` | 1,000 | 0.0003 | 40.0 |" in text
    assert "| a-lp-ft | 90.0 | 85.0 to 95.0 | 1 | 2 | 10 | - | 50 | flops |" in text
    assert "Within noise: a-lp-ft and b-lp-ft." in text and "Failed: c-lp-ft: no memory." in text
    assert "| a from scratch | 2 |" in compare_backbones.table({"estimate": {"a from scratch": 120.0}})


def test_an_archive_with_fewer_test_images_keeps_all_others(tmp_path):
    names = [f"{part}/{label}/{n}.png" for part in ("train", "test") for label in "ab" for n in range(5)]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for name in names:
            file.writestr(name, name)
    found = compare_backbones.reduced(tmp_path / "photos.zip", tmp_path / "work" / "photos.zip", 6)
    with zipfile.ZipFile(found) as file:
        assert {name: file.read(name).decode() for name in file.namelist()} == {
            name: name for name in names if name.startswith("train") or int(name[7]) < 3
        }


def test_a_comparison_that_is_there_must_be_the_one_that_is_asked_for(tmp_path):
    trained = {"a": Run(tmp_path / "a")}
    record = {"name": "cifar10", "members": [{"weights": str(tmp_path / "a")}], "strategies": ["lp-ft"],
              "seeds": [0, 1, 2], "budget": "2m",
              "recipe": {"limit": 5000, "batch_size": 64, "threads": None}}  # fmt: skip
    asked = SimpleNamespace(strategies=["lp-ft"], seeds=3, budget="120s", limit=5000, batch_size=64, threads=None)
    compare_backbones._require_same(record, asked, trained)
    other = SimpleNamespace(**{**vars(asked), "seeds": 5, "budget": "10m"})
    with pytest.raises(SystemExit, match="cifar10 was made with --seeds 3, now 5; --budget 2m, now 10m"):
        compare_backbones._require_same(record, other, trained)
