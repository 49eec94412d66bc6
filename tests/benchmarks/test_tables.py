from __future__ import annotations

import argparse
import sys

import pytest

from benchmarks import adapt_table, partial, scaling, second_run, startup, wait

MACHINE = {"cpu": "a processor", "cores": 2, "packages": {"torch": "2.9"}, "when": "2026-01-02T03:04:05+00:00"}


def run(side, seed, accuracy, whole, points, **key):
    own = {"zoo": ""} if side == "zoo" else {"epochs": adapt_table.EPOCHS}
    return {
        "key": {"work": "cifar10-probe", "side": side, "seed": seed, "limit": None, **own, **key},
        "machine": MACHINE, "samples": "a list", "labelled": 720, "image_size": 224, "kind": "probe",
        "accuracy": accuracy, "memory_mb": 800, "anonymous_mb": 500, "points": points,
        "marks": {"training": 2.0, "trained": whole - 1}, "epoch_seconds": [0.5],
        "seconds": {"whole": whole, "setup": 2.0, "training": whole - 3.0, "rest": 1.0},
    }  # fmt: skip


def pairs():
    rows = []
    for seed in (0, 1):
        rows.append(run("zoo", seed, 0.96, 11.0, [{"seconds": 5.0, "accuracy": 0.95, "best": True}]))
        rows.append(run("fastai", seed, 0.95, 101.0, [{"seconds": 50.0, "accuracy": 0.95}]))
    return rows


def record(rows):
    return {"machine": MACHINE, "peer": "fastai", "rows": rows}


def test_the_table_has_both_sides_and_their_ratios():
    text = adapt_table.table(record(pairs()))
    assert text.startswith("a processor, 2 cores, torch 2.9, 2026-01-02.")
    assert (
        "| cifar10-probe (head only), 720 labelled, 224 px | zoo | 96.0 ± 0.0 | 11.0 | 2.0 | 8.0 | 800 | 500 |" in text
    )
    assert "|  | fastai | 95.0 ± 0.0 | 101.0 | 2.0 | 98.0 | 800 | 500 |" in text
    # 5 s against the 100 s after which the other has trained.
    assert "| cifar10-probe | 0.11 | 0.08 | 0.05 (0.05 to 0.05; 2 of 2) | 1.00 | +1.0 ± 0.0 | 2 |" in text


def test_an_accuracy_that_is_not_reached_is_said_so():
    rows = pairs()
    for row in rows[1::2]:
        row["accuracy"] = 0.99
    assert "| 0 of 2 | 1.00 | -3.0 ± 0.0 | 2 |" in adapt_table.table(record(rows))


def test_only_runs_on_the_same_images_are_compared():
    rows = pairs()
    rows[1]["samples"] = "another list"
    assert "+1.0 | 1 |" in adapt_table.table(record(rows))


def test_changed_choices_have_a_row_of_their_own():
    rows = [*pairs(), run("zoo", 0, 0.97, 20.0, [], zoo="epochs=20")]
    text = adapt_table.table(record(rows))
    assert "| cifar10-probe | 0.11 |" in text
    assert "| cifar10-probe, epochs=20 | 0.20 |" in text


def test_training_is_the_same_span_on_both_sides_also_for_one_epoch():
    ours, theirs = pairs()[:2]
    for row in (ours, theirs):
        row["kind"] = "epoch"
    assert "| cifar10-probe | 0.11 | 0.08 |" in adapt_table.table(record([ours, theirs]))  # 8 s of 98 s


def test_the_plot_is_written_beside_the_page(tmp_path):
    adapt_table.draw_plots(record(pairs()), tmp_path)
    assert (tmp_path / "benchmarks-fastai.png").read_bytes().startswith(b"\x89PNG")
    assert "(benchmarks-fastai.png)" in adapt_table.table(record(pairs()))


def test_kept_activations_are_compared_seed_by_seed():
    rows = [
        {"key": {"work": "cifar10", "augment": "none", "cache": cache, "epochs": None, "seed": seed, "limit": None},
         "seconds": {"training": training, "whole": training + 10}, "accuracy": accuracy}
        for cache, seed, training, accuracy in [("on", 0, 5.0, 0.61), ("on", 1, 5.0, 0.60), ("off", 0, 20.0, 0.60),
                                                ("off", 1, 20.0, 0.60), ("on", 2, 99.0, 0.1)]
    ]  # fmt: skip
    line = partial.table({"machine": MACHINE, "rows": rows}).splitlines()[-1]
    assert line.startswith("| cifar10, augmentation none | 5.0 | 20.0 | 0.25 | 15.0 | 30.0 | 0.50 | 60.5 ± ")
    assert line.endswith("| 60.0 ± 0.0 | +0.5 ± 6.4 | 2 |")


def test_preparing_is_images_and_activations_alone():
    stages = {"preparing the backbone": 0.5, "checking and decoding the images": 3.5, "loading weights": 9.0,
              "opening what a phase trains on": 0.5, "computing activations before fc (view 1 of 4)": 4.5,
              "training": 20.0, "computing activations before fc (validation images)": 1.0,
              "estimating time and memory": 50.0}  # fmt: skip
    assert second_run.preparation(stages) == (4.0, 6.0)
    row = {"key": {"work": "flowers12", "second": "partial"}, "first": {"stages": stages},
           "after": {"stages": {"checking and decoding the images": 0.4, "training": 3.0}}}  # fmt: skip
    line = second_run.table({"machine": MACHINE, "rows": [row]}).splitlines()[-1]
    assert line == "| flowers12, then partial | 4.00 | 0.40 | 6.00 | 0.00 | 0.040 | 1 |"


def test_scaling_has_a_line_for_each_size_and_way():
    rows = [{"key": {"work": "images", "value": count, "cache": "on"}, "anonymous_mb": 900,
             "seconds": {"whole": count / 100, "training": count / 200},
             "stages": {"checking and decoding the images": 1.5}} for count in (1000, 20000)]  # fmt: skip
    text = scaling.table({"machine": MACHINE, "rows": rows})
    assert "| 1,000 | on | 10.0 | 5.0 | 1.5 | 900 |" in text
    assert "| 20,000 | on | 200.0 | 100.0 | 1.5 | 900 |" in text
    assert "trains from" not in text


def test_waiting_leaves_the_first_epoch_out():
    def epochs(seconds):
        return [{"images": 100, "seconds": s, "waited": 0.04 * s} for s in seconds]

    key = {"backbone": "resnet50", "precision": "bf16", "batch_size": 128}
    rows = [
        {"key": {**key, "side": side}, "epochs": epochs(seconds)}
        for side, seconds in (("store", [9.0, 2.0, 2.0]), ("synthetic", [9.0, 1.9, 1.9]))
    ]  # fmt: skip
    line = wait.table({"machine": MACHINE, "rows": rows}).splitlines()[-1]
    assert line == "| resnet50, bf16, batches of 128 | 4.0 % | 50 | 53 | 95 % |"


def test_without_an_accelerator_the_section_says_so(monkeypatch):
    monkeypatch.setattr(wait, "accelerator", lambda: None)
    monkeypatch.setattr(wait, "describe_machine", lambda: MACHINE)
    assert wait.table(wait.measure(arguments(wait, "--data", "nowhere"))) == wait.NONE


@pytest.mark.parametrize("module", [partial, second_run, scaling])
def test_images_and_weights_must_be_named(module, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "describe_machine", lambda: MACHINE)
    with pytest.raises(SystemExit, match="--data and --weights must be named"):
        module.measure(arguments(module, "--results", str(tmp_path / "none.jsonl")))


def test_start_up_is_held_against_its_own_baseline():
    middle = {"zoo list": 0.2, "zoo --help": 0.1, startup.FIRST_STEP: 6.0, startup.LISTING: 4.0, startup.MAKING: 3.0,
              startup.FIRST_BATCH: 5.0, startup.IMPORTING: 4.0, startup.RESULT: 6.0,
              startup.RESULT_BEFORE: 12.0}  # fmt: skip
    ratio = {name: middle[name] / middle[startup.BASELINES[name]] for name in startup.BASELINES if name in middle}
    text = startup.table(
        {"machine": MACHINE, "median": middle, "ratio": ratio, "seconds": {startup.LISTING: [4.0] * 7}}
    )
    assert "Medians of 7 turns." in text
    assert "| zoo adapt, to its first step | 6.00 | `timm.create_model()` | 3.00 | 2.00 |" in text
    assert "| zoo adapt, to its first batch | 5.00 | `import torch, timm` | 4.00 | 1.25 |" in text
    assert "| zoo adapt, to its result | 6.00 | zoo adapt, to its result, before | 12.00 | 0.50 |" in text


def test_a_command_is_timed_to_its_end_or_to_a_line(tmp_path):
    talk = "import sys, time; print('accuracy 1', flush=True); time.sleep(1.5); print('next:')"
    told, ended = (startup.Timed([sys.executable, "-c", talk], caches=tmp_path, until=until).seconds()
                   for until in (startup.TOLD, ""))  # fmt: skip
    assert told < 1.5 < ended
    for words, until in ((talk, "never"), (f"{talk}; sys.exit(1)", startup.TOLD)):
        with pytest.raises(SystemExit, match="this failed, or did not say"):
            startup.Timed([sys.executable, "-c", words], caches=tmp_path, until=until).seconds()


def arguments(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(words))
