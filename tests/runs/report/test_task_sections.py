"""What the report shows of a run with several tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.runs.report.fixture import make_run
from tests.runs.report.html_reader import read
from zoo.base.text import DASH
from zoo.runs.report.page import write_report
from zoo.runs.report.tables import class_rows
from zoo.runs.report.task_sections import alone_record
from zoo.runs.run_folder import Run
from zoo.tasks.schema import Task, spans

TASKS = [
    {"name": "kind", "kind": "single-label", "classes": ["<b>cat</b>", "dog"]},
    {"name": "age", "kind": "regression", "mean": 4.0, "std": 2.0},
    {"name": "size", "kind": "ordinal", "classes": ["small", "middle", "large"]},
    {"name": "signs", "kind": "multi-label", "classes": ["bell", "collar"], "thresholds": [0.5, 0.25]},
]
RESULT: dict[str, Any] = {
    "problem": "multi-task", "score": 0.68, "loss": 1.5, "n": 60, "split": "test", "selected_on": "val", "mistakes": [],
    "tasks": {
        "kind": {"problem": "single-label", "accuracy": 0.9, "interval": [0.77, 0.96], "top5": 1.0, "loss": 0.3,
                 "macro_f1": 0.89, "ece": 0.05, "n": 40, "baseline": 0.6, "confusion": [[22, 2], [2, 14]],
                 "classes": [{"name": "<b>cat</b>", "n": 24, "accuracy": 22 / 24},
                             {"name": "dog", "n": 16, "accuracy": 14 / 16}]},
        "age": {"problem": "regression", "r2": 0.71, "mae": 1.5, "rmse": 2.25, "loss": 0.2, "n": 30,
                "baseline_mae": 4.5},
        "size": {"problem": "ordinal", "kappa": 0.55, "accuracy": 0.7, "mae": 0.35, "loss": 0.6, "n": 50,
                 "baseline": 0.4,
                 "confusion": [[10, 5, 0], [5, 15, 0], [0, 5, 10]],
                 "classes": [{"name": name, "n": n, "accuracy": 0.7} for name, n in
                             (("small", 15), ("middle", 20), ("large", 15))]},
        "signs": {"problem": "multi-label", "map": 0.56, "interval": [0.5, 0.6], "micro_f1": 0.5, "macro_f1": 0.45,
                  "accuracy": 0.3, "loss": 0.4, "n": 60, "baseline": 0.3,
                  "labels": [{"name": "bell", "n": 10, "ap": 0.4, "f1": 0.3, "precision": 0.3, "recall": 0.3,
                              "threshold": 0.5},
                             {"name": "collar", "n": 30, "ap": 0.72, "f1": 0.6, "precision": 0.5, "recall": 0.75,
                              "threshold": 0.25}]},
    },
}  # fmt: skip
OUTPUTS = ["kind: <b>cat</b>", "kind: dog", "age", "size: above small", "size: above middle", "signs: bell",
           "signs: collar"]  # fmt: skip


def tasks_run(root: Path, *, learned: bool, status: str = "finished") -> Run:
    run = make_run(root, kind="multitask", status=status, result=RESULT if status == "finished" else None)
    counts = {role: {"n": 100, "per_class": [40, 30, 70, 60, 20, 15, 45]} for role in ("fit", "choose", "report")}
    record = run.record
    record["dataset"] |= {"tasks": TASKS, "classes": OUTPUTS, "counts": counts}
    run.write_record(record)
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    for line in lines:
        if line["event"] == "step":
            line["parts"] = {task["name"]: line["loss"] / 4 for task in TASKS}
            if learned:
                line["parts"] |= {f"weight of {task['name']}": 1.1 for task in TASKS}
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_each_task_has_its_measure_losses_and_tables(tmp_path: Path) -> None:
    path = write_report(tasks_run(tmp_path, learned=True), {})
    page = read(path)
    words = page.words("tasks")
    for row in ("kind single-label accuracy 90.0% 77.0 to 96.0% 40 60.0%", f"age regression R² 0.710 {DASH} 30 0",
                f"size ordinal kappa 0.550 {DASH} 50 0",
                "signs multi-label mAP 56.0% 50.0 to 60.0% 60 30.0%"):  # fmt: skip
        assert row in words
    assert "Loss of each task" in words and "Learned weight of each task" in words
    assert "<b>cat</b> 40 24 91.7%" in words, "trained on, measured, recognised; and a name is no markup"
    assert "Mean error 1.5" in words and "Mean error of guessing the mean 4.5" in words
    assert "collar 45 30 72.0% 0.600 50.0% 75.0% 0.250" in words
    assert "0.680" in page.words("result") and "mean score" in page.words("result")
    html = path.read_text(encoding="utf-8")
    assert "for 4 tasks: kind, age, size, signs" in html and 'id="labels"' not in html


def test_weights_that_nobody_learned_are_not_drawn_and_an_unfinished_run_has_losses(tmp_path: Path) -> None:
    words = read(write_report(tasks_run(tmp_path, learned=False, status="interrupted"), {})).words("tasks")
    assert "Loss of each task" in words and "Learned weight" not in words and "90.0%" not in words


def test_what_an_unfinished_run_has_reached_is_written_as_its_result_would_be(tmp_path: Path) -> None:
    run = tasks_run(tmp_path, learned=False, status="interrupted")
    run.metrics_path.write_text("")
    run.write_record({**run.record, "best": {"phase": "finetune", "epoch": 2, "step": 9, "score": 0.5, "loss": 1.0}})
    assert "Its mean score on the validation images 0.500" in read(write_report(run, {})).words("result")


def test_one_task_has_no_section(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path, curves=False), {}).read_text(encoding="utf-8")
    assert 'id="tasks"' not in html


def test_an_unknown_score_is_a_dash(tmp_path):
    record = tasks_run(tmp_path, learned=False).record
    record["result"]["score"] = None
    page = read(write_report(Run(tmp_path), {}, record))
    assert page.words("result").split()[0] == "\N{EN DASH}"


def test_a_task_alone_has_its_own_images_and_steps(tmp_path):
    record = tasks_run(tmp_path, learned=False).record
    for held in record["dataset"]["counts"].values():
        held["answers"] = {"kind": 70, "age": 70, "size": 80, "signs": 90}
    own = {"name": "photos", "tasks": ["size"], "reported_on": "test (cut)", "selected_on": "val (cut)"}
    record["dataset"]["sets"] = [{"name": "people", "tasks": ["kind", "age", "signs"]}, own]
    span = next(span for span in spans([Task.from_record(task) for task in TASKS]) if span.task.name == "size")
    alone = alone_record(record, span)
    assert alone["dataset"]["name"] == "photos" and alone["result"]["split"] == "test (cut)"
    assert alone["dataset"]["counts"]["fit"] == {"n": 80, "per_class": [60, 20]} and "sets" not in alone["dataset"]
    rows = {row.name: row for row in class_rows(alone)}
    assert {name: row.trained_on for name, row in rows.items()} == {"small": 20, "middle": 40, "large": 20}
    assert rows["small"].confused_with == "middle", "steps are told apart, though the outputs are one less"
    assert record["dataset"]["sets"][1] is own
