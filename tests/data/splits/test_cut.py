from __future__ import annotations

import random
from collections import Counter

import pytest

from zoo.data.splits.cut import cut, fold, limited, per_class, share


def population(sizes: dict[int, int]) -> tuple[list[str], list[int]]:
    ids = [f"{label}/{number:04d}" for label, size in sizes.items() for number in range(size)]
    return ids, [int(name.split("/")[0]) for name in ids]


def test_a_cut_is_stratified_and_whole() -> None:
    ids, labels = population({0: 100, 1: 31, 2: 2, 3: 1})
    stay, off = cut(ids, labels, 0.2, seed=0, purpose="val")
    assert sorted([*stay, *off]) == list(range(len(ids)))
    assert Counter(labels[position] for position in off) == {0: 20, 1: 6, 2: 1}


def test_a_cut_depends_on_seed_and_purpose_not_on_the_order_of_files() -> None:
    ids, labels = population({0: 40, 1: 40})
    _, off = cut(ids, labels, 0.25, seed=0, purpose="val")
    shuffled = list(range(len(ids)))
    random.Random(1).shuffle(shuffled)
    _, other = cut([ids[i] for i in shuffled], [labels[i] for i in shuffled], 0.25, seed=0, purpose="val")
    assert {ids[position] for position in off} == {ids[shuffled[position]] for position in other}
    for changed in ({"seed": 1, "purpose": "val"}, {"seed": 0, "purpose": "test"}):
        assert cut(ids, labels, 0.25, **changed)[1] != off  # type: ignore[arg-type]


def test_duplicates_stay_together_even_across_classes() -> None:
    ids, labels = population({0: 30, 1: 30})
    contents = [bytes([number // 3]) for number in range(60)]  # triplets
    contents[45] = contents[2]  # one triplet has a fourth copy in the other class
    for seed in range(20):
        stay, off = cut(ids, labels, 0.3, seed=seed, purpose="val", contents=contents)
        assert not {contents[position] for position in stay} & {contents[position] for position in off}
        counts = Counter(labels[position] for position in off)
        assert all(1 <= counts[label] <= 10 for label in (0, 1))


def test_a_class_of_one_image_many_times_stays_in_one_place() -> None:
    ids, labels = population({0: 8, 1: 8})
    contents = [b"same" if label == 0 else name.encode() for name, label in zip(ids, labels, strict=True)]
    _, off = cut(ids, labels, 0.25, seed=0, purpose="val", contents=contents)
    assert Counter(labels[position] for position in off) == {1: 2}


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(0, 0.5, 0), (1, 0.9, 0), (2, 0.1, 1), (5, 0.99, 4), (100, 0.2, 20)]
)
def test_share_leaves_something_on_both_sides(count: int, fraction: float, expected: int) -> None:
    assert share(count, fraction) == expected


def test_few_shot_takes_so_many_of_each_and_grows_without_exchanging() -> None:
    ids, labels = population({0: 50, 1: 3})
    few = per_class(ids, labels, 5, seed=0, purpose="few")
    assert Counter(labels[position] for position in few) == {0: 5, 1: 3}
    assert set(few) <= set(per_class(ids, labels, 10, seed=0, purpose="few"))


@pytest.mark.parametrize("count", [1, 3, 4, 10, 57, 110, 111, 500])
def test_a_limit_keeps_the_proportions_and_is_exact(count: int) -> None:
    sizes = {0: 80, 1: 20, 2: 10, 3: 1}
    ids, labels = population(sizes)
    kept = limited(ids, labels, count, seed=0)
    assert len(kept) == len(set(kept)) == min(count, 111)
    counts = Counter(labels[position] for position in kept)
    if count >= 4:
        assert all(counts[label] >= 1 for label in sizes)
    assert all(abs(counts[label] - size * min(count, 111) / 111) <= 2 for label, size in sizes.items())


@pytest.mark.parametrize("of", [2, 3, 5])
def test_folds_are_everything_once_and_of_about_one_size(of: int) -> None:
    ids, labels = population({0: 31, 1: 12, 2: 7})
    parts = [fold(ids, labels, number, of, seed=4) for number in range(1, of + 1)]
    assert sorted(position for _, off in parts for position in off) == list(range(len(ids)))
    assert all(sorted(stay + off) == list(range(len(ids))) for stay, off in parts)
    for label, size in {0: 31, 1: 12, 2: 7}.items():
        counts = [sum(labels[position] == label for position in off) for _, off in parts]
        assert max(counts) - min(counts) <= 1 and sum(counts) == size
    assert fold(ids, labels, 1, of, seed=5) != parts[0]


def test_equal_images_are_in_one_fold() -> None:
    ids, labels = population({0: 20, 1: 20})
    contents = [f"{number // 2}".encode() for number in range(40)]
    for number in (1, 2, 3):
        stay, off = fold(ids, labels, number, 3, seed=0, contents=contents)
        assert not {contents[position] for position in stay} & {contents[position] for position in off}
