from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import fill, opened
from zoo.data import DataOptions, open_evaluation
from zoo.errors import DataError

SETS = [
    ["red"],
    ["blue", "red"],
    [],
    ["green"],
    ["green", "red"],
    ["blue"],
    ["blue", "green"],
    ["blue", "green", "red"],
]
NAMES = ("blue", "green", "red")


def written(root: Path) -> list[tuple[str, list[str]]]:
    """Two dozen images, and the labels of each."""
    fill(root, {"img": 24})
    return [(f"img/{number:05d}.png", SETS[number % len(SETS)]) for number in range(24)]


def table(root: Path, way: str) -> Path:
    rows = written(root)
    path = root / f"{way}.csv"
    if way == "cells":
        lines = ["path,label", *(f"{name},{'; '.join(labels)}" for name, labels in rows)]
    elif way == "rows":
        lines = ["path,label", *(f"{name},{label}" for name, labels in rows for label in labels or [""])]
    elif way == "columns":
        flags = [",".join("yes" if name in labels else "0" for name in NAMES) for _, labels in rows]
        lines = ["path," + ",".join(NAMES), *(f"{row[0]},{flag}" for row, flag in zip(rows, flags, strict=True))]
    else:
        path = root / "lists.jsonl"
        lines = [json.dumps({"path": name, "label": labels}) for name, labels in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


CHOICES = {
    "cells": {"label_separator": ";"},
    "rows": {"problem": "multi-label"},
    "columns": {"label_column": "blue,green,red"},
    "lists": {},
}


@pytest.mark.parametrize("way", CHOICES)
def test_every_way_of_writing_labels_says_the_same(tmp_path, way):
    dataset = opened(table(tmp_path, way), **CHOICES[way])
    (task,) = dataset.tasks
    assert (task.kind, task.classes, dataset.classes) == ("multi-label", NAMES, NAMES)
    parts = (dataset.train, dataset.val, dataset.test)
    assert sum(map(len, parts)) == 24, "a path in several rows is one image"
    for part in parts:
        for sample in part.samples:
            labels = SETS[int(Path(sample.id).stem) % len(SETS)]
            assert sample.label == tuple(float(name in labels) for name in NAMES)
        assert min(part.class_counts()) >= 1, "every part knows every label"
    assert dataset.train.truth().dtype.is_floating_point and dataset.train.truth().shape == (len(dataset.train), 3)


def test_without_being_told_a_text_is_one_class(tmp_path):
    path = table(tmp_path, "cells")
    path.write_text(path.read_text().replace(",\n", ",none\n"))
    dataset = opened(path)
    assert dataset.tasks[0].plain and "blue; red" in dataset.classes


def test_an_empty_flag_is_not_known(tmp_path):
    path = table(tmp_path, "columns")
    lines = path.read_text().splitlines()
    lines[1] = f"{lines[1].split(',')[0]},,0,yes"
    path.write_text("\n".join(lines))
    dataset = opened(path, label_column="blue,green,red")
    rows = {sample.id: sample.label for part in (dataset.train, dataset.val, dataset.test) for sample in part.samples}
    assert math.isnan(rows["img/00000.png"][0]) and rows["img/00000.png"][1:] == (0.0, 1.0)
    assert sum(math.isnan(row[0]) for row in rows.values()) == 1


@pytest.mark.parametrize(
    ("way", "options", "what", "why", "fix"),
    [
        ("cells", {"label_separator": "|"}, "no image of", "no cell of 'label' contains '|'", "--label-separator ';'"),
        ("cells", {"problem": "multi-label"}, "no image of", "no path is in two rows", "--label-separator ';'"),
        ("columns", {"label_column": "blue,pink"}, "has no column 'pink'", "blue, green, red", "--label-column"),
        ("columns", {"label_column": "blue,path"}, "'path' does not say", "row 1 says 'img/", "write 1 or 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path, way, options, what, why, fix):
    with pytest.raises(DataError) as caught:
        opened(table(tmp_path, way), **options)
    assert what in caught.value.what and why in caught.value.why and fix in caught.value.fix


def test_a_label_that_nobody_has_is_refused(tmp_path):
    path = table(tmp_path, "columns")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},pink", *(f"{line},0" for line in lines[1:])]))
    with pytest.raises(DataError, match="1 label\\(s\\) that no training image has: pink"):
        opened(path, label_column="blue,green,red,pink")


def test_rows_of_one_image_must_agree_on_its_split(tmp_path):
    written(tmp_path)
    path = tmp_path / "t.csv"
    path.write_text("path,label,split\nimg/00000.png,a,train\nimg/00000.png,b,test\nimg/00001.png,b,train\n")
    with pytest.raises(DataError) as caught:
        opened(path, problem="multi-label")
    assert "is in train and in test" in caught.value.what and "rows 1 and 2" in caught.value.why


def test_a_label_that_only_the_test_split_has_is_refused(tmp_path):
    written(tmp_path)
    path = tmp_path / "t.csv"
    path.write_text("path,label,split\nimg/00000.png,a;b,train\nimg/00001.png,c;a,test\nimg/00002.png,b,train\n")
    with pytest.raises(DataError) as caught:
        opened(path, label_separator=";")
    assert "1 label(es) that training does not know: c" in caught.value.why


def test_folders_have_one_class_of_each_image(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(DataError, match="has one class per image"):
        opened(tmp_path, label_separator=";")


def test_a_number_per_class_cannot_be_taken(tmp_path):
    with pytest.raises(DataError) as caught:
        opened(table(tmp_path, "cells"), label_separator=";", train_per_class=3)
    assert "--limit" in caught.value.fix
    few = opened(table(tmp_path, "cells"), label_separator=";", limit=10)
    assert len(few.train) + len(few.val) == 10


def test_a_scored_table_has_the_models_labels_in_the_models_order(tmp_path):
    path = table(tmp_path, "cells")
    (task,) = opened(path, label_separator=";").tasks
    columns = tmp_path / "other.csv"
    columns.write_text("path,red,blue\nimg/00000.png,1,0\nimg/00001.png,0,1\n")
    found = open_evaluation(str(columns), NAMES, DataOptions(label_column="red,blue", tasks=(task,)))
    assert np.allclose(found.part.truth(), [[0, math.nan, 1], [1, math.nan, 0]], equal_nan=True)
    plain = tmp_path / "plain.csv"
    plain.write_text("path,label\nimg/00000.png,red\n")
    with pytest.raises(DataError, match="the model predicts several targets"):
        open_evaluation(str(plain), NAMES, DataOptions(tasks=(task,)))


@pytest.mark.parametrize(("part", "where"), [("val", "val"), ("test", "test")])
def test_what_no_image_has_can_neither_choose_nor_report(tmp_path, part, where):
    """There would be no mean average precision, and the finished run would be of no use."""
    lines = ["path,label,split"]
    for name, labels in written(tmp_path):
        split = ("train", "train", "val", "test")[int(Path(name).stem) % 4]
        lines.append(f"{name},{'' if split == part else ';'.join(labels or ['red'])},{split}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"no image of {where} has any of the labels"):
        opened(tmp_path / "t.csv", label_separator=";")
