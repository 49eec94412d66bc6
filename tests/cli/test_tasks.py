"""Several tasks on the command line: how they are asked for, and how their answers are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import render
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run
from zoo.tasks.predictions import Prediction, TaskPrediction

KIND = {"problem": "single-label", "accuracy": 0.9, "interval": [0.8, 0.95], "top5": 1.0, "loss": 0.3, "macro_f1": 0.88,
        "ece": 0.05, "n": 40, "baseline": 0.6, "mistakes": [{"id": "a"}],
        "classes": [{"name": "cat", "n": 24, "accuracy": 0.95}, {"name": "dog", "n": 16, "accuracy": None}],
        }  # fmt: skip
AGE = {"problem": "regression", "r2": 0.71, "mae": 1.5, "rmse": 2.25, "loss": 0.2, "n": 30, "baseline_mae": 4.0,
       "mistakes": []}  # fmt: skip
SIZE = {"problem": "ordinal", "kappa": 0.55, "accuracy": 0.7, "mae": 0.35, "loss": 0.6, "n": 50, "baseline": 0.4,
        "classes": [{"name": "small", "n": 50, "accuracy": 0.7}], "confusion": [[1]], "mistakes": []}  # fmt: skip
RESULT = {"problem": "multi-task", "score": 0.72, "loss": 1.1, "n": 60, "split": "test", "selected_on": "val",
          "mistakes": [], "tasks": {"kind": KIND, "age": AGE, "size": SIZE}}  # fmt: skip


def test_tasks_name_their_data_sets(zoo_, api):
    done = zoo_("plan", "resnet_nano", "--task", "kind=pets.csv:kind", "--task", "size=pets.csv:size:small<big",
                "--task-weight", "kind=2", "--task-weight", "size=0.5", "--task-temperature", 0.5)  # fmt: skip
    assert done.code == 0, done.err
    _, args, _ = api.calls[0]
    asked = ("kind=pets.csv:kind", "size=pets.csv:size:small<big")
    weights = {"kind": 2.0, "size": 0.5}
    assert args == ("resnet_nano", "pets.csv", Recipe(tasks=asked, task_weights=weights, task_temperature=0.5))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "kind=pets.csv:kind", "--dataset", "other.csv"), "--task kind=other.csv:COLUMN"),
        (("--task", "kind"), "write NAME=DATASET[:COLUMN[:KIND]]"),
        (("--task", "kind=pets.csv:kind:sort"), "the kind 'sort' is none of single-label"),
        (("--task", "kind=pets.csv:kind", "--task-weight", "age=1"), "there is no such task"),
        (("--dataset", "digits", "--task-weighting", "pcgrad"), "there are no tasks"),
    ],
)
def test_tasks_that_cannot_be_are_wrong_usage(zoo_, api, words, said):
    done = zoo_("adapt", "resnet_nano", *words)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err and not api.calls


@pytest.mark.parametrize("words", [("compare", "resnet_nano", "vgg11"), ("rank",)])
def test_what_compares_backbones_takes_no_tasks(zoo_, api, words):
    done = zoo_(*words, "--task", "kind=pets.csv:kind")
    assert done.code == 2 and f"zoo {words[0]} takes images of one class each" in done.err and not api.calls


def test_a_resumed_run_keeps_its_tasks_beside_what_is_typed(zoo_, api):
    run, tasks = Run(Path("runs/old")), ("kind=/far/pets.csv:kind", "age=/far/pets.csv:age")
    run.path.mkdir(parents=True)
    run.write_record({"schema": 1, "recipe": Recipe(tasks=tasks).record(), "resolved": {},
                      "backbone": {"name": "resnet/resnet_nano"}, "dataset": {"ref": "/far/pets.csv"}})  # fmt: skip
    assert zoo_("adapt", "--resume", "old", "--workers", 2).code == 0
    assert api.calls[0][2]["recipe"] == Recipe(tasks=tasks, workers=2) and api.calls[0][2]["dataset"] is None


def test_a_reproduction_says_what_is_no_share_without_per_cent(capsys, tmp_path):
    run = Run(tmp_path)
    run.write_record({"schema": 1, "result": RESULT})
    record = {"identical": True, "tensors": {"n": 3}, "accuracy": {"before": 0.72, "now": 0.7}, "differences": []}
    render.reproduction(record, run)
    assert "mean score 0.720 then, 0.700 now" in capsys.readouterr().out


def test_an_evaluation_has_a_part_for_each_task(zoo_, api, monkeypatch):
    monkeypatch.setattr(api, "evaluate", lambda *args, **named: RESULT)
    out = zoo_("eval", "run").out
    assert out.startswith("0.720 mean score of 60 images from test")
    for line in ("kind: 90.0% (80.0 to 95.0%) accuracy of 40 images", "age: 0.710 R² of 30 images",
                 "size: 0.550 kappa of 50 images"):  # fmt: skip
        assert line in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "cat 24 95.0%" in lines and "dog 16 -" in lines and "small 50 70.0%" in lines
    assert "mean error 1.5" in lines and "by the mean 4" in lines and "mean error, levels 0.350" in lines
    assert zoo_("eval", "run", "--json").json["tasks"]["age"]["mae"] == 1.5


@dataclass(frozen=True)
class Unreadable:
    def record(self) -> dict[str, Any]:
        return {"path": "broken.png", "error": "cannot identify image"}


def test_predictions_have_a_column_for_each_task(zoo_, api, monkeypatch):
    answers = {"kind": TaskPrediction("cat", 0.91, (("cat", 0.91),)), "age": TaskPrediction(value=3.5),
               "signs": TaskPrediction(top=(("bell", 0.2),), labels=())}  # fmt: skip
    said = [Unreadable(), Prediction("a.png", None, None, tasks=answers)]
    monkeypatch.setattr(api, "predict", lambda *args, **named: said)
    done = zoo_("predict", "run", "broken.png", "a.png")
    lines = [line.split() for line in done.out.splitlines() if line]
    assert lines == [["image", "kind", "age", "signs"], ["a.png", "cat", "91.0%", "3.5", "none"]]
    assert done.code == 1 and "cannot identify image" in done.err
    found = zoo_("predict", "run", "broken.png", "a.png", "--json").json
    assert found[1] == {"path": "a.png", "tasks": {
        "kind": {"label": "cat", "probability": 0.91, "top": [{"label": "cat", "probability": 0.91}]},
        "age": {"value": 3.5}, "signs": {"labels": [], "top": [{"label": "bell", "probability": 0.2}]},
    }}  # fmt: skip


def finished(name: str, recipe: Recipe, resolved: dict[str, Any], data: str) -> None:
    run = Run(Path(f"runs/{name}"))
    run.path.mkdir(parents=True)
    run.write_record({"schema": 1, "recipe": recipe.record(), "resolved": resolved,
                      "backbone": {"name": "resnet/resnet_nano"}, "dataset": {"ref": data}})  # fmt: skip


def test_tasks_or_labels_go_on_top_of_a_run_that_had_neither(zoo_, api):
    """Its record says single-label because that is what was found, not because anybody chose it."""
    finished("old", Recipe(), {"problem": "single-label"}, "/far/pets.csv")
    assert zoo_("plan", "--recipe", "runs/old", "--task", "kind=pets.csv:kind").code == 0
    assert zoo_("plan", "--recipe", "runs/old", "--label-separator", ";").code == 0
    assert [call[1][2] for call in api.calls] == [Recipe(tasks=("kind=pets.csv:kind",)), Recipe(label_separator=";")]


def test_another_data_set_does_not_take_the_place_of_tasks(zoo_, api):
    tasks = ("kind=/far/pets.csv:kind", "age=/far/pets.csv:age")
    finished("old", Recipe(tasks=tasks, task_weights={"age": 0.5}, task_weighting="pcgrad"), {}, "/far/pets.csv")
    for words in (("plan",), ("compare", "resnet_nano", "vgg11")):
        done = zoo_(*words, "--recipe", "runs/old", "--dataset", "other.csv")
        assert done.code == 2 and "there are no tasks" not in done.err and not api.calls
    assert zoo_("plan", "--recipe", "runs/old", "--dataset", "/far/pets.csv").code == 0
    assert zoo_("plan", "--recipe", "runs/old", "--task", "kind=new.csv:kind").code == 0, "without the weight of age"
    assert api.calls[1][1][2] == Recipe(tasks=("kind=new.csv:kind",), task_weighting="pcgrad")


def test_an_ordinal_result_stands_beside_what_guessing_reaches_of_it():
    said = "0 (always guessing the same level); accuracy 70.0%, and 40.0% by always guessing the commonest"
    assert render.baseline(SIZE) == said
    assert render.baseline(KIND) == "60.0% (always guessing the commonest class)"
