"""The Hub source's own decisions, on tables made in memory; tests/hub has the network's part."""

from __future__ import annotations

from typing import Any

import datasets
import pytest

from tests.data.pictures import encoded, ids, opened, picture
from zoo.errors import DataError


def table(labels: list[object], label: object, column: str = "label", image: str = "image", start: int = 0) -> Any:
    cells = [{"bytes": encoded(picture(start + row)), "path": None} for row in range(len(labels))]
    features = datasets.Features({image: datasets.Image(), column: label})
    return datasets.Dataset.from_dict({image: cells, column: labels}, features=features)


NAMES = datasets.ClassLabel(names=["zebra", "ant"])


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def serve(outcome: Any) -> list[tuple[object, ...]]:
        calls: list[tuple[object, ...]] = []

        def load(path: str, name: str | None, revision: str | None = None) -> Any:
            calls.append((path, name, revision))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    return serve


def test_names_and_order_are_the_class_labels(serve: Any) -> None:
    calls = serve({"train": table([0, 1] * 5, NAMES), "validation": table([1, 1], NAMES, start=50)})
    found = opened("hf:me/zoo@v2", config="large")
    assert calls == [("me/zoo", "large", "v2")]
    assert found.classes == ("zebra", "ant")
    assert found.test.class_counts() == [0, 2]
    assert (found.name, found.selected_on, found.reported_on) == ("zoo", "val (cut from train)", "val")
    assert "validation/0" in ids(found.test)


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (["b", "a"] * 5, datasets.Value("string"), ("a", "b")),
        ([10, 9] * 5, datasets.Value("int64"), ("9", "10")),
    ],
)
def test_labels_without_class_label(serve: Any, labels: list[object], kind: object, classes: tuple[str, ...]) -> None:
    serve({"train": table(labels, kind, column="labels", image="picture")})
    assert opened("hf:me/zoo").classes == classes


def test_a_split_without_labels_is_left_out_and_noted(serve: Any) -> None:
    serve({"train": table([0, 1] * 5, NAMES), "test": table([-1, -1], NAMES), "extra": table([0], NAMES)})
    found = opened("hf:me/zoo")
    assert found.reported_on == "test (cut from train)"
    assert "the split test has no labels and is left out" in found.notes
    assert "the split extra is left out" in found.notes


def test_broken_images_of_a_table_are_listed(serve: Any) -> None:
    rows = table([0, 1] * 5, NAMES)
    spoilt = rows.to_dict()
    spoilt["image"][3] = {"bytes": b"no image", "path": None}
    spoilt["image"][4] = None
    serve({"train": datasets.Dataset.from_dict(spoilt, features=rows.features)})
    with pytest.raises(DataError) as caught:
        opened("hf:me/zoo")
    assert "train/3: not an image" in caught.value.why
    assert "train/4: the row has no image" in caught.value.why


@pytest.mark.parametrize(
    ("outcome", "options", "what", "rest"),
    [
        (
            {"train": table([0, 1], NAMES)},
            {"path_column": "photo"},
            "no column of images named 'photo'",
            "image, label",
        ),
        ({"train": table([0, 1], NAMES)}, {"label_column": "kind"}, "has no column 'kind'", "--label-column"),
        (
            {"train": table([[0], [1]], datasets.List(datasets.Value("int64")))},
            {},
            "does not hold one label per image",
            "List",
        ),
        ({"train": table([0, None, 1], NAMES)}, {}, "1 row(s) of train in me/zoo have no label", ""),
        ({"validation": table([0], NAMES), "test": table([1], NAMES)}, {}, "has no training split", "validation, test"),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'me/zoo' is a gated dataset on the Hub."),
            {},
            "is gated: its terms must be accepted first",
            "hf auth login",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'me/zoo' doesn't exist"),
            {},
            "there is no data set me/zoo on the Hub",
            "https://huggingface.co/datasets/me/zoo",
        ),
        (ValueError("BuilderConfig 'x' not found. Available: ['a', 'b']"), {}, "cannot be loaded", "--config"),
        (RuntimeError("Dataset scripts are no longer supported"), {}, "cannot be loaded", "no longer supported"),
        (ConnectionError("no route"), {}, "is not on this machine and cannot be fetched", "HF_HUB_OFFLINE"),
        (OSError(28, "No space left on device"), {}, "cannot store me/zoo", "HF_HOME"),
        (KeyError("odd"), {}, "cannot be loaded", "odd"),
    ],
)
def test_faults(serve: Any, outcome: Any, options: dict[str, Any], what: str, rest: str) -> None:
    serve(outcome)
    with pytest.raises(DataError) as caught:
        opened("hf:me/zoo", **options)
    assert what in caught.value.what
    assert rest in f"{caught.value.why} {caught.value.fix}"


def test_a_registry_entry_whose_splits_moved(serve: Any) -> None:
    serve({"all": table([0, 1], NAMES)})
    with pytest.raises(DataError, match="timm/eurosat-rgb has no split test, train, validation\n  why: it has: all"):
        opened("eurosat")
