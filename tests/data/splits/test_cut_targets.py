from __future__ import annotations

import numpy as np
import pytest

from zoo.data.splits.cut import share
from zoo.data.splits.cut_targets import cut_strata, limited_strata
from zoo.data.targets import counts, indicators
from zoo.tasks.schema import Task

IDS = [f"{number:04d}" for number in range(400)]


def flags(seed: int = 0) -> np.ndarray:
    """400 images, labels from common to one that two images have."""
    generator = np.random.default_rng(seed)
    found = generator.random((400, 8)) < np.array([0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0])
    found[[3, 250], 7] = True
    return found


@pytest.mark.parametrize("seed", range(5))
def test_both_parts_know_every_label_in_its_proportion(seed):
    table = flags(seed)
    stay, off = cut_strata(IDS, table, 0.2, seed=seed, purpose="test")
    assert sorted(stay + off) == list(range(400)) and abs(len(off) - 80) <= 3
    for label in range(8):
        total, cut = table[:, label].sum(), table[off, label].sum()
        if total >= 2:
            assert 1 <= cut < total
        assert abs(cut - share(total, 0.2)) <= max(2, 0.1 * total * 0.2)


def test_it_depends_on_the_ids_and_the_seed_alone():
    table = flags()
    _, off = cut_strata(IDS, table, 0.2, seed=0, purpose="test")
    backwards = list(range(400))[::-1]
    _, again = cut_strata([IDS[i] for i in backwards], table[backwards], 0.2, seed=0, purpose="test")
    assert {IDS[i] for i in off} == {IDS[backwards[i]] for i in again}
    assert cut_strata(IDS, table, 0.2, seed=1, purpose="test")[1] != off


def test_identical_images_stay_together():
    contents = [str(number // 2).encode() for number in range(400)]
    _, off = cut_strata(IDS, flags(), 0.2, seed=0, purpose="test", contents=contents)
    assert {i // 2 for i in off}.isdisjoint({i // 2 for i in range(400) if i not in set(off)})


def test_a_limit_keeps_rare_labels():
    table = flags()
    few = limited_strata(IDS, table, 60, seed=0)
    assert len(few) == 60 and table[few].any(0).all()
    assert limited_strata(IDS, table, 1000, seed=0) == list(range(400))


def test_answers_of_every_kind_count():
    nan = float("nan")
    tasks = [Task("a", "single-label", ("x", "y")), Task("b", "regression"), Task("c", "ordinal", ("1", "2", "3"))]
    targets = [(0.0, 1.0, 2.0), (1.0, nan, 0.0), (nan, 3.0, nan), (1.0, 4.0, 1.0)]
    assert counts(tasks, targets) == [1, 2, 3, 2, 1]
    table = indicators(tasks, targets)
    assert table.shape == (4, 2 + 4 + 3)
    assert table.sum(1).tolist() == [3, 2, 1, 3], "what is not known is no answer"
