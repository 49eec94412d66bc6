from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import config, fill, opened
from zoo.data import DataOptions, evaluation_options, open_evaluation, train_loader
from zoo.data.targets import draw_weights
from zoo.errors import DataError
from zoo.tasks.schema import Task, TaskSpec

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
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 40
    for part in (dataset.train, dataset.val, dataset.test):
        for sample in part.samples:
            number = number_of(sample)
            kind, size, age, indoor, night, mark = sample.label
            assert math.isnan(kind) if number % 5 == 0 else kind == number % 2
            assert size == number % 3 and mark == number % 4
            assert math.isnan(age) if number % 4 == 0 else age == pytest.approx(number / 4)
            # A cell without labels is not known, where an image answers other questions.
            assert math.isnan(indoor) if not number & 3 else (indoor, night) == (number & 1, number >> 1 & 1)
    ages = [sample.label[2] for sample in dataset.train.samples if not math.isnan(sample.label[2])]
    age = dataset.tasks[2]
    assert age.mean == pytest.approx(np.mean(ages)) and age.std == pytest.approx(np.std(ages)), "of what is trained on"
    assert dataset.train.tasks == dataset.tasks


def test_what_is_guessed_is_said(tmp_path):
    table = people(tmp_path)
    dataset = opened("anything", specs=asked(f"age={table}:age", f"mark={table}:mark"))
    assert [task.kind for task in dataset.tasks] == ["regression", "single-label"]
    notes = " ".join(dataset.notes)
    assert "taken for numbers to predict (regression); for classes write …:age:single-label" in notes
    assert "4 whole numbers are taken for classes; if their order means something write …:mark:ordinal" in notes


def test_a_row_that_answers_nothing_is_left_out(tmp_path):
    table = people(tmp_path)
    dataset = opened("anything", specs=asked(f"kind={table}:kind", f"age={table}:age"))
    samples = [sample for part in (dataset.train, dataset.val, dataset.test) for sample in part.samples]
    assert {number_of(sample) for sample in samples} == set(range(40)) - {0, 20}
    assert "2 row(s) of people.csv have no target, and are left out" in dataset.notes


@pytest.mark.parametrize(
    ("task", "what", "why"),
    [
        ("size={}:size:ordinal", "cannot be used for the task size", "whose order is not known"),
        ("size={}:size:S<M", "cannot be used for the task size", "L is none of the levels S<M"),
        ("kind={}:kind:regression", "cannot be used for the task kind", "row 2 says 'dog', which is not a number"),
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
    with pytest.raises(DataError, match="it cannot give columns"):
        opened("anything", specs=asked(f"letter={folder}:kind"))
    with pytest.raises(DataError, match="it cannot give 2 tasks"):
        opened("anything", specs=asked(f"letter={folder}", f"again={folder}"))


@pytest.mark.parametrize("more", [(), ("kind={}:kind",)])
@pytest.mark.parametrize("kind", ["", ":multi-label"])
def test_an_empty_cell_is_not_known_however_the_task_is_asked(tmp_path, more, kind):
    table = people(tmp_path)
    texts = [f"tags={table}:tags{kind}", *(text.format(table) for text in more)]
    dataset = opened("anything", specs=asked(*texts), label_separator="+")
    samples = [sample for part in (dataset.train, dataset.val, dataset.test) for sample in part.samples]
    rows = {number_of(sample): sample.label[:2] for sample in samples}
    assert rows[3] == (1.0, 1.0) and rows[1] == (1.0, 0.0)
    empty = [number for number in range(40) if not number & 3]
    assert all(math.isnan(rows[number][0]) for number in empty if number in rows)
    assert bool(rows.keys() & set(empty)) == bool(more), "alone, such an image answers nothing"


def test_a_tasks_labels_stand_in_one_row(tmp_path):
    table = people(tmp_path)
    table.write_text(table.read_text() + "img/00001.png,,,,night,1\n")
    with pytest.raises(DataError, match=r"rows 2 and 41 give img/00001[.]png different labels") as caught:
        opened("anything", specs=asked(f"tags={table}:tags:multi-label"), label_separator="+")
    assert "--label-separator" in caught.value.fix


def test_one_label_each_is_said_of_the_tasks_column(tmp_path):
    table = people(tmp_path)
    with pytest.raises(DataError) as caught:
        opened("anything", specs=asked(f"hue={table}:size:multi-label"), label_separator="+")
    assert caught.value.why == "no cell of 'size' contains '+'"
    assert "--task hue=people.csv:size:single-label" in caught.value.fix
    with pytest.raises(DataError, match=r"'\+' separates nothing"):
        opened("anything", specs=asked(f"kind={table}:kind"), label_separator="+")


def test_whole_numbers_that_pandas_wrote_beside_gaps_are_classes(tmp_path):
    table = people(tmp_path)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{line}.0" for line in lines[1:-1]), lines[-1][:-1]]))
    for kind, expected in (("", "single-label"), (":ordinal", "ordinal"), (":1<2<3<4", "ordinal")):
        (task,) = opened("anything", specs=asked(f"mark={table}:mark{kind}")).tasks
        assert (task.kind, task.classes) == (expected, ("1", "2", "3", "4"))


def test_what_answers_nothing_is_no_data_set(tmp_path):
    table = people(tmp_path)
    (task,) = opened("anything", specs=asked(f"kind={table}:kind")).tasks
    empty = tmp_path / "empty.csv"
    empty.write_text("path,kind\nimg/00000.png,\nimg/00001.png,\n")
    with pytest.raises(DataError, match=r"no row of .*empty[.]csv has a target for the task kind") as caught:
        open_evaluation(str(empty), task.classes, evaluation_options(str(empty), (task,), (), DataOptions()))
    assert "all cells under kind are empty" in caught.value.why


def test_a_task_may_be_called_label(tmp_path):
    table = people(tmp_path)
    for column, kind, separator in (("age", "regression", None), ("tags", "multi-label", "+")):
        specs = asked(f"label={table}:{column}")
        tasks = opened("anything", specs=specs, label_separator=separator).tasks
        options = evaluation_options(str(table), tasks, specs, DataOptions(label_separator=separator))
        found = open_evaluation(str(table), tasks[0].classes, options)
        assert found.part.tasks == tasks and tasks[0].kind == kind and len(found.part) == 30


def test_columns_are_looked_for_in_every_line(tmp_path):
    """JSON lines may have other keys in each, and many."""
    people(tmp_path)
    (task,) = opened("anything", specs=asked(f"kind={tmp_path / 'people.csv'}:kind")).tasks
    path = tmp_path / "wide.jsonl"
    rows = [{"path": "img/00000.png", **{f"c{n}": n for n in range(40)}}, {"path": "img/00001.png", "kind": "dog"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [question.name for question in evaluation_options(str(path), (task,), (), DataOptions()).task_columns] == [
        "kind"
    ]


def test_images_that_one_set_trains_on_and_another_reports_on_are_noted(tmp_path):
    table, photos = people(tmp_path), fill(tmp_path / "photos", {"train/a": 8, "train/b": 8, "test/a": 4, "test/b": 4})
    dataset = opened("anything", specs=asked(f"size={table}:size", f"letter={photos}"))

    def numbers(name: str, *parts: object) -> set[int]:
        return {number_of(each) for part in parts for each in part.samples if each.id.startswith(f"{name}/")}  # type: ignore[attr-defined]

    for name, other in (("people", "photos"), ("photos", "people")):
        same = numbers(name, dataset.test) & numbers(other, dataset.train, dataset.val)
        said = f"{name}: {len(same)} image(s) that it reports on are exact copies of images that {other} trains on"
        assert same and any(note.startswith(said) for note in dataset.notes)
    far = fill(tmp_path / "far", {"a": 8, "b": 8}, start=500)
    notes = opened("anything", specs=asked(f"size={table}:size", f"far={far}")).notes
    assert not any("exact copies" in note for note in notes)


def test_parts_of_several_data_sets_can_be_put_together(tmp_path):
    """As a second training does: it must not decode every image in every epoch."""
    table, photos = people(tmp_path), fill(tmp_path / "photos", {"a": 8, "b": 8}, start=500)
    dataset = opened("anything", specs=asked(f"kind={table}:kind", f"letter={photos}"), image_size=16)
    both = dataset.train.joined(dataset.val)
    assert both.is_stored(16, "bicubic") and len(both) == len(dataset.train) + len(dataset.val)
    assert both.stored(len(dataset.train), 16, "bicubic") is not None
    assert dataset.val_cut, "which lets refit decide"
    given = fill(
        tmp_path / "given", {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2}, 600
    )
    assert not opened("anything", specs=asked(f"kind={table}:kind", f"letter={given}")).val_cut


def test_a_label_of_the_wrong_sort_is_an_error(tmp_path):
    part = opened(fill(tmp_path, {"a": 5, "b": 5})).train
    part.tasks = (Task("letter", "single-label", part.classes),)
    with pytest.raises(TypeError, match="are not targets"):
        part.targets  # noqa: B018


def test_several_data_sets_are_joined(tmp_path):
    table = people(tmp_path / "people")
    photos = fill(tmp_path / "photos", {"train/a": 8, "train/b": 8, "test/a": 4, "test/b": 4}, start=500)
    dataset = opened("anything", specs=asked(f"kind={table}:kind", f"letter={photos}"), image_size=16)
    assert dataset.name == "people+photos" and dataset.classes == ("kind: cat", "kind: dog", "letter: a", "letter: b")
    assert dataset.reported_on == "people: test (cut from all images); photos: test"
    assert len(dataset.train) == 20 + 12 and len(dataset.test) == 6 + 8
    by_set = {name: [s for s in dataset.train.samples if s.id.startswith(f"{name}/")] for name in ("people", "photos")}
    assert all(math.isnan(sample.label[1]) for sample in by_set["people"])
    assert all(math.isnan(sample.label[0]) and not math.isnan(sample.label[1]) for sample in by_set["photos"])
    sizes = {sample.id: dataset.train.image(place).size for place, sample in enumerate(dataset.train.samples)}
    assert set(sizes.values()) == {(20, 16)} and dataset.train.is_stored(16, "bicubic"), (
        "each is read, from its own store"
    )
    for place in (0, len(dataset.train) - 1):
        stored = dataset.train.stored(place, 16, "bicubic")
        assert np.abs(stored.astype(int) - np.asarray(dataset.train.image(place)).astype(int)).max() == 0
    assert dataset.counts()["fit"]["per_class"][2:] == [6, 6]
    assert dataset.counts()["report"]["answers"]["letter"] == 8 and dataset.counts()["report"]["n"] == 14
    assert [(one.name, one.tasks, one.reported_on) for one in dataset.sets] == [
        ("people", ("kind",), "test (cut from all images)"), ("photos", ("letter",), "test"),
    ]  # fmt: skip
    assert dataset.license is None


def test_a_low_temperature_draws_tasks_alike(tmp_path):
    tasks = (Task("big", "single-label", ("x", "y")), Task("small", "single-label", ("x", "y")))
    targets = [(0.0, math.nan)] * 90 + [(math.nan, 1.0)] * 10
    even = draw_weights(tasks, targets, 0.0)
    assert sum(even[:90]) == pytest.approx(sum(even[90:]))
    root = draw_weights(tasks, targets, 0.5)
    assert sum(root[:90]) / sum(root[90:]) == pytest.approx(3.0), "the square root of nine"
    assert len(set(draw_weights(tasks, targets, 1.0))) == 1
    part = opened(fill(tmp_path, {"a": 60, "b": 60}), val_fraction=0.1).train
    part = part.with_targets(tasks, [(0.0, math.nan)] * (len(part) - 8) + [(math.nan, 1.0)] * 8)
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
    options = evaluation_options(str(some), tasks, (), DataOptions())
    found = open_evaluation(str(some), ("a", "b", "c"), options)
    assert found.part.tasks == tasks and math.isnan(found.part.targets[0][0]) and found.part.targets[0][1] == 3.5
    some.write_text("path,height\nimg/00001.png,3.5\n")
    with pytest.raises(DataError) as caught:
        evaluation_options(str(some), tasks, (), DataOptions())
    assert "none of the columns kind, age" in caught.value.what and "height" in caught.value.why


def test_a_folder_scores_a_task_of_classes(tmp_path):
    photos = fill(tmp_path / "photos", {"b": 2, "a": 1})
    task = Task("letter", "single-label", ("c", "b", "a"))
    found = open_evaluation(str(photos), task.classes, evaluation_options(str(photos), (task,), (), DataOptions()))
    assert sorted(found.part.targets) == [(1.0,), (1.0,), (2.0,)]
    others = (Task("age", "regression"), task, Task("sort", "single-label", ("a", "x")))
    found = open_evaluation(str(photos), ("…",), evaluation_options(str(photos), others, (), DataOptions()))
    assert {target[1:2] for target in found.part.targets} == {(1.0,), (2.0,)}, "whose classes are theirs"
    assert all(math.isnan(target[0]) and math.isnan(target[2]) for target in found.part.targets)
    with pytest.raises(DataError, match="there is not exactly one task of the model that has all of their classes"):
        open_evaluation(str(photos), ("…",), DataOptions(tasks=(*others, replace(task, name="again"))))
    with pytest.raises(DataError, match="class\\(es\\) that training does not know: a"):
        open_evaluation(str(photos), ("b",), DataOptions(tasks=(Task("letter", "single-label", ("b", "c")),)))
