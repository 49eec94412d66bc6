from __future__ import annotations

import pytest

from zoo.tasks.schema import Task, headline, one_class, output_names, problem, spans

TASKS = (
    Task("animal", "single-label", ("cat", "dog", "fox")),
    Task("seen", "multi-label", ("grass", "snow"), thresholds=(0.5, 0.25)),
    Task("age", "regression", mean=4.0, std=2.0),
    Task("size", "ordinal", ("S", "M", "L")),
)


def test_outputs_and_answers_stand_side_by_side():
    found = [(span.outputs, span.columns) for span in spans(TASKS)]
    assert [(out.start, out.stop) for out, _ in found] == [(0, 3), (3, 5), (5, 6), (6, 8)]
    assert [(col.start, col.stop) for _, col in found] == [(0, 1), (1, 3), (3, 4), (4, 5)]
    assert output_names(TASKS) == ("animal: cat", "animal: dog", "animal: fox", "seen: grass", "seen: snow", "age",
                                   "size: above S", "size: above M")  # fmt: skip
    assert output_names(TASKS[1:2]) == ("grass", "snow")
    assert [problem(tasks) for tasks in (one_class("ab"), TASKS[1:2], TASKS)] == [
        "single-label",
        "multi-label",
        "multi-task",
    ]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_record_comes_back(task):
    assert Task.from_record(task.record()) == task


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "must be a mapping"),
        ({"name": "a", "kind": "guess"}, "is none of single-label"),
        ({"name": "a", "kind": "ordinal", "classes": ["one"]}, "1 classes"),
        ({"name": "a", "kind": "single-label", "classes": ["x", "x"]}, "2 classes"),
        ({"name": "a", "kind": "multi-label", "classes": ["x"], "thresholds": [2]}, "between 0 and 1"),
        ({"name": "a", "kind": "multi-label", "classes": ["x"], "thresholds": [0.1, 0.2]}, "2 thresholds for 1"),
        ({"name": "a", "kind": "regression", "std": 0}, "above 0"),
        ({"name": "a", "kind": "single-label", "classes": "xyz"}, "list of texts"),
    ],
)
def test_a_strangers_task_is_looked_at(record, said):
    with pytest.raises(ValueError, match=said):
        Task.from_record(record)


def test_the_number_a_result_is_known_by():
    assert headline({"accuracy": 0.5}) == ("accuracy", 0.5)
    assert headline({"problem": "multi-label", "accuracy": 0.1, "map": 0.6}) == ("mAP", 0.6)
