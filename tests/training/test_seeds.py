from __future__ import annotations

import random

import numpy as np
import torch

from zoo.training.seeds import derive, seed_all


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_names_give_the_same_draws_whatever_came_before() -> None:
    seed_all(3, "step", 7)
    first = draws()
    draws()
    seed_all(3, "step", 7)
    assert draws() == first


def test_other_seeds_and_names_give_others() -> None:
    found = {derive(seed, *names) for seed in (0, 1) for names in (("a", 1), ("a", 2), ("a1",), ("a", "1", ""))}
    assert len(found) == 8 and all(0 <= value < 2**63 for value in found)
