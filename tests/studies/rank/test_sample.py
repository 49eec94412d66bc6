"""Which images a ranking looks at, on data sets that are nothing but labels."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from zoo.data import Part
from zoo.data.types import Item
from zoo.errors import DataError
from zoo.studies.rank.sample import sampled


def part(role: str, sizes: list[int]) -> Part:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    items = [Item(f"{role}/{number}", "", None, 0, 0) for number in range(len(labels))]
    names = tuple(f"c{label}" for label in range(len(sizes)))
    return Part(role=role, items=items, labels=labels, classes=names, reader=None, store=None, rows=None, hflip=True,
                on_bad_image="error")  # fmt: skip


def dataset(fit: list[int], choose: list[int] | None = None) -> SimpleNamespace:
    fitted = part("train", fit)
    chosen = fitted if choose is None else part("val", choose)
    return SimpleNamespace(train=fitted, val=chosen, classes=fitted.classes)


def drawn(parts: list[Part]) -> Counter[int]:
    return Counter(label for one in parts for label in one.labels)


def test_a_given_val_counts_within_the_limit():
    parts, notes = sampled(dataset([300, 100], [300, 100]), 100, seed=0)
    assert [one.role for one in parts] == ["train", "val"] and notes == []
    assert sum(map(len, parts)) == 100 and drawn(parts) == {0: 74, 1: 26}
    assert sum(map(len, sampled(dataset([30, 10]), 100, seed=0)[0])) == 40, "images that train and choose count once"


def test_a_long_tail_keeps_two_images_of_a_class_and_leaves_out_what_has_one():
    parts, notes = sampled(dataset([5000, 300, 3, 1, 1], [500, 30, 0, 1, 0]), 50, seed=0)
    found = drawn(parts)
    assert sum(found.values()) == 50 and found[2] >= 2 and found[3] == 2 and 4 not in found
    assert found[0] > 35 and found[1] >= 4, "the others as they are"
    assert notes == ["ranking leaves out 1 class(es) with one image: c4"]


def test_more_classes_than_can_be_looked_at_are_drawn():
    parts, notes = sampled(dataset([4] * 30), 20, seed=0)
    assert drawn(parts) == dict.fromkeys(drawn(parts), 2) and len(drawn(parts)) == 10
    assert notes == ["20 images are two of each of 10 classes; the other 20 are left out"]
    again, _ = sampled(dataset([4] * 30), 20, seed=0)
    assert [one.samples for one in again] == [one.samples for one in parts]
    assert drawn(sampled(dataset([4] * 30), 20, seed=1)[0]) != drawn(parts)


def test_what_leaves_one_class_is_refused():
    with pytest.raises(DataError, match="too few images to rank by") as caught:
        sampled(dataset([50, 1, 1]), 40, seed=0)
    assert caught.value.why == "1 class(es) have 2 or more train and validation images"
