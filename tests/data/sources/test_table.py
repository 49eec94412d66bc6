from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.data.pictures import fill, ids, opened
from zoo.errors import DataError


def rows(root: Path, per_class: int = 5) -> list[dict[str, object]]:
    fill(root / "images", {"x": per_class, "y": per_class})
    return [
        {"path": f"images/{name}/{index:05d}.png", "label": label}
        for name, label, start in (("x", "ten", 0), ("y", "two", per_class))
        for index in range(start, start + per_class)
    ]


def write(path: Path, table: list[dict[str, object]]) -> Path:
    frame = pd.DataFrame(table)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.jsonl"])
def test_a_table_of_relative_paths(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, rows(tmp_path))
    monkeypatch.chdir(tmp_path.parent)  # relative to the table, not to where one stands
    dataset = opened(path)
    assert dataset.classes == ("ten", "two")
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 10
    assert dataset.train.image(0).size == (20, 16)
    assert all(sample.id.startswith("images/") for sample in dataset.train.samples)


def test_split_column_and_named_columns(tmp_path: Path) -> None:
    table = [
        {"file": row["path"], "kind": row["label"], "split": ["train", "train", "train", "Validation", "test"][i % 5]}
        for i, row in enumerate(rows(tmp_path))
    ]
    path = write(tmp_path / "t.csv", table)
    dataset = opened(path, path_column="file", label_column="kind")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 2, 2)
    assert (dataset.selected_on, dataset.reported_on) == ("val", "test")
    with pytest.raises(DataError) as caught:
        opened(path)
    assert "has no column 'path'" in caught.value.what
    assert caught.value.why == "its columns are: file, kind, split"
    assert "--path-column" in caught.value.fix


def test_labels_stay_as_written_and_numbers_sort_by_value(tmp_path: Path) -> None:
    table = rows(tmp_path)
    numbers = [{**row, "label": "10" if row["label"] == "ten" else "2"} for row in table]
    assert opened(write(tmp_path / "n.csv", numbers)).classes == ("2", "10")
    codes = [{**row, "label": "NA" if row["label"] == "ten" else "01"} for row in table]
    assert opened(write(tmp_path / "c.csv", codes)).classes == ("01", "NA")
    whole = [{**row, "label": 3 if row["label"] == "ten" else 1} for row in table]
    assert opened(write(tmp_path / "w.parquet", whole)).classes == ("1", "3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"1 row\(s\) have no label"),
        ({"path": None}, r"1 row\(s\) have no path"),
    ],
)
def test_rows_without_a_value(tmp_path: Path, change: dict[str, object], message: str) -> None:
    table = rows(tmp_path)
    table[3] = {**table[3], **change}
    with pytest.raises(DataError, match=message + ".*\n  why: the first is row 4"):
        opened(write(tmp_path / "t.csv", table))


def test_unknown_split_and_empty_and_unreadable_tables(tmp_path: Path) -> None:
    table = [{**row, "split": "holdout"} for row in rows(tmp_path)]
    with pytest.raises(DataError, match="values that are not splits: holdout"):
        opened(write(tmp_path / "s.csv", table))
    (tmp_path / "e.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="has no rows"):
        opened(tmp_path / "e.csv")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        opened(tmp_path / "b.parquet")


def test_a_path_that_is_not_there_is_an_unreadable_image(tmp_path: Path) -> None:
    table = [*rows(tmp_path), {"path": "images/gone.png", "label": "ten"}]
    with pytest.raises(DataError, match=r"images/gone.png: No such file or directory"):
        opened(write(tmp_path / "t.csv", table))


def test_a_path_in_two_rows_gets_two_ids(tmp_path: Path) -> None:
    table = rows(tmp_path)
    dataset = opened(write(tmp_path / "t.csv", [*table, table[0]]))
    everything = ids(dataset.train) | ids(dataset.val) | ids(dataset.test)
    assert f"{table[0]['path']}#2" in everything
    assert "1 path(s) appear in more than one row" in dataset.notes
