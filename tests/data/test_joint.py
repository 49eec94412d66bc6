from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import config, fill, opened
from zoo.data import DataOptions, asked_of, open_evaluation, train_loader
from zoo.data.targets import draw_weights
from zoo.errors import DataError
from zoo.tasks import Task, TaskSpec

COLUMNS = "path,kind,age,size,tags,mark"


def people(root: Path) -> Path:
    """Forty images with a class, a quantity, steps, labels and whole numbers; some of each are not known."""
    fill(root, {"img": 40})
    lines = [COLUMNS]
    for number in range(40):
        kind = ("cat", "dog")[number % 2] if number % 5 else ""
        age = f"{number / 4:.2f}" if number % 4 else ""
        size = ("S", "M", "L")[number % 3]
        tags = "+".join(name for place, name in enumerate(("indoor", "night")) if number >> place & 1)
        lines.append(f"img/{number:05d}.png,{kind},{age},{size},{tags},{number % 4 + 1}")
    path = root / "people.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def asked(*texts: str) -> tuple[TaskSpec, ...]:
    return tuple(map(TaskSpec.parse, texts))


def number_of(sample: object) -> int:
    return int(Path(sample.id).stem)  # type: ignore[attr-defined]


def test_columns_of_one_table_are_tasks(tmp_path):
    table = people(tmp_path)
    specs = asked(f"kind={table}:kind", f"size={table}:size:S<M<L", f"age={table}:age", f"tags={table}:tags",
                  f"mark={table}:mark:ordinal")  # fmt: skip
    dataset = opened("anything", specs=specs, label_separator="+")
    kinds = {task.name: (task.kind, task.classes) for task in dataset.tasks}
    assert kinds == {
        "kind": ("single-label", ("cat", "dog")), "size": ("ordinal", ("S", "M", "L")), "age": ("regression", ()),
        "tags": ("multi-label", ("indoor", "night")), "mark": ("ordinal", ("1", "2", "3", "4")),
    }  # fmt: skip
    assert dataset.classes[:4] == ("kind: cat", "kind: dog", "size: above S", "size: above M")
    assert len(dataset.fit) + len(dataset.choose) + len(dataset.report) == 40
    for part in (dataset.fit, dataset.choose, dataset.report):
        for sample in part.samples:
            number = number_of(sample)
            kind, size, age, indoor, night, mark = sample.label
            assert math.isnan(kind) if number % 5 == 0 else kind == number % 2
            assert size == number % 3 and mark == number % 4
            assert math.isnan(age) if number % 4 == 0 else age == pytest.approx(number / 4)
            # A cell without labels is not known, where an image answers other questions.
            assert math.isnan(indoor) if not number & 3 else (indoor, night) == (number & 1, number >> 1 & 1)
    ages = [sample.label[2] for sample in dataset.fit.samples if not math.isnan(sample.label[2])]
    age = dataset.tasks[2]
    assert age.mean == pytest.approx(np.mean(ages)) and age.std == pytest.approx(np.std(ages)), "of what is trained on"
    assert dataset.fit.tasks == dataset.tasks


def test_what_is_guessed_is_said(tmp_path):
    table = people(tmp_path)
    dataset = opened("anything", specs=asked(f"age={table}:age", f"mark={table}:mark"))
    assert [task.kind for task in dataset.tasks] == ["regression", "single-label"]
    notes = " ".join(dataset.notes)
    assert "taken for a quantity (regression); for classes write …:age:single-label" in notes
    assert "4 whole numbers are taken for classes; if their order means something write …:mark:ordinal" in notes


def test_a_row_that_answers_nothing_is_left_out(tmp_path):
    table = people(tmp_path)
    dataset = opened("anything", specs=asked(f"kind={table}:kind", f"age={table}:age"))
    samples = [sample for part in (dataset.fit, dataset.choose, dataset.report) for sample in part.samples]
    assert {number_of(sample) for sample in samples} == set(range(40)) - {0, 20}
    assert "2 row(s) of people.csv answer no task, and are left out" in dataset.notes


@pytest.mark.parametrize(
    ("task", "what", "why"),
    [
        ("size={}:size:ordinal", "cannot be used for the task size", "whose order nobody knows"),
        ("size={}:size:S<M", "cannot be used for the task size", "L is none of the steps S<M"),
        ("kind={}:kind:regression", "cannot be used for the task kind", "row 2 says 'dog', which is no number"),
        ("hue={}:hue", "has no column 'hue'", "path, kind, age"),
    ],
)
def test_what_a_column_is_not_is_refused(tmp_path, task, what, why):
    with pytest.raises(DataError) as caught:
        opened("anything", specs=asked(task.format(people(tmp_path))))
    assert what in caught.value.what and why in caught.value.why


def test_a_folder_has_one_class_of_each_image(tmp_path):
    folder = fill(tmp_path / "photos", {"a": 5, "b": 5})
    (task,) = opened("anything", specs=asked(f"letter={folder}")).tasks
    assert task == Task("letter", "single-label", ("a", "b"))
    with pytest.raises(DataError, match="columns cannot be had of it"):
        opened("anything", specs=asked(f"letter={folder}:kind"))
    with pytest.raises(DataError, match="2 tasks cannot be had of it"):
        opened("anything", specs=asked(f"letter={folder}", f"again={folder}"))


def test_several_data_sets_are_joined(tmp_path):
    table = people(tmp_path / "people")
    photos = fill(tmp_path / "photos", {"train/a": 8, "train/b": 8, "test/a": 4, "test/b": 4}, start=500)
    dataset = opened("anything", specs=asked(f"kind={table}:kind", f"letter={photos}"), image_size=16)
    assert dataset.name == "people+photos" and dataset.classes == ("kind: cat", "kind: dog", "letter: a", "letter: b")
    assert dataset.reported_on == "people: test (cut from all images); photos: test"
    assert len(dataset.fit) == 20 + 12 and len(dataset.report) == 6 + 8
    by_set = {name: [s for s in dataset.fit.samples if s.id.startswith(f"{name}/")] for name in ("people", "photos")}
    assert all(math.isnan(sample.label[1]) for sample in by_set["people"])
    assert all(math.isnan(sample.label[0]) and not math.isnan(sample.label[1]) for sample in by_set["photos"])
    sizes = {sample.id: dataset.fit.image(place).size for place, sample in enumerate(dataset.fit.samples)}
    assert set(sizes.values()) == {(20, 16)} and dataset.fit.is_stored(16, "bicubic"), (
        "each is read, from its own store"
    )
    for place in (0, len(dataset.fit) - 1):
        stored = dataset.fit.stored(place, 16, "bicubic")
        assert np.abs(stored.astype(int) - np.asarray(dataset.fit.image(place)).astype(int)).max() == 0
    assert dataset.counts()["fit"]["per_class"][2:] == [6, 6]


def test_a_low_temperature_draws_tasks_alike(tmp_path):
    tasks = (Task("big", "single-label", ("x", "y")), Task("small", "single-label", ("x", "y")))
    targets = [(0.0, math.nan)] * 90 + [(math.nan, 1.0)] * 10
    even = draw_weights(tasks, targets, 0.0)
    assert sum(even[:90]) == pytest.approx(sum(even[90:]))
    root = draw_weights(tasks, targets, 0.5)
    assert sum(root[:90]) / sum(root[90:]) == pytest.approx(3.0), "the square root of nine"
    assert len(set(draw_weights(tasks, targets, 1.0))) == 1
    part = opened(fill(tmp_path, {"a": 60, "b": 60}), val_fraction=0.1).fit
    part = part.answering(tasks, [(0.0, math.nan)] * (len(part) - 8) + [(math.nan, 1.0)] * 8)
    loader = train_loader(part, config=config(), augment="none", batch_size=8, seed=0, temperature=0.0)
    drawn = [key.position for keys in loader.keys(0) for key in keys]
    assert 0.35 < np.mean([place >= len(part) - 8 for place in drawn]) < 0.65
    plain = train_loader(part, config=config(), augment="none", batch_size=8, seed=0)
    assert len({key.position for keys in plain.keys(0) for key in keys}) == len(drawn), "each once"


def test_a_table_is_asked_what_it_can_answer(tmp_path):
    table = people(tmp_path)
    tasks = opened("anything", specs=asked(f"kind={table}:kind", f"age={table}:age")).tasks
    some = tmp_path / "some.csv"
    some.write_text("path,age\nimg/00001.png,3.5\n")
    options = asked_of(str(some), tasks, (), DataOptions())
    found = open_evaluation(str(some), ("a", "b", "c"), options)
    assert found.part.tasks == tasks and math.isnan(found.part.targets[0][0]) and found.part.targets[0][1] == 3.5
    some.write_text("path,height\nimg/00001.png,3.5\n")
    with pytest.raises(DataError) as caught:
        asked_of(str(some), tasks, (), DataOptions())
    assert "none of the columns kind, age" in caught.value.what and "height" in caught.value.why


def test_a_folder_scores_a_task_of_classes(tmp_path):
    photos = fill(tmp_path / "photos", {"b": 2, "a": 1})
    task = Task("letter", "single-label", ("c", "b", "a"))
    found = open_evaluation(str(photos), task.classes, asked_of(str(photos), (task,), (), DataOptions()))
    assert sorted(found.part.targets) == [(1.0,), (1.0,), (2.0,)]
    others = (Task("age", "regression"), task, Task("sort", "single-label", ("a", "x")))
    found = open_evaluation(str(photos), ("…",), asked_of(str(photos), others, (), DataOptions()))
    assert {target[1:2] for target in found.part.targets} == {(1.0,), (2.0,)}, "whose classes are theirs"
    assert all(math.isnan(target[0]) and math.isnan(target[2]) for target in found.part.targets)
    with pytest.raises(DataError, match="there is not just one of its tasks that has all of their classes"):
        open_evaluation(str(photos), ("…",), DataOptions(tasks=(*others, replace(task, name="again"))))
    with pytest.raises(DataError, match="class\\(es\\) that training does not know: a"):
        open_evaluation(str(photos), ("b",), DataOptions(tasks=(Task("letter", "single-label", ("b", "c")),)))
