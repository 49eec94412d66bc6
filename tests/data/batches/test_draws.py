from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from tests.data.pictures import picture
from zoo.data.batches import draws
from zoo.data.batches.draws import ERASED, RATIO


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (32, 32), (300, 9), (9, 300), (1, 1)])
@pytest.mark.parametrize("scale", [(0.7, 1.0), (0.25, 1.0)])
def test_crops_are_timms(size: tuple[int, int], scale: tuple[float, float]) -> None:
    image = picture(0, *size)
    for seed in range(60):
        random.seed(seed)
        expected = RandomResizedCropAndInterpolation.get_params(image, scale, RATIO)
        assert tuple(draws.crop(size[1], size[0], scale, random.Random(seed))) == expected


def test_mirroring_and_colours_are_torchvisions() -> None:
    jitter = transforms.ColorJitter(0.2, 0.2, 0.2)
    mirrored = 0
    for seed in range(60):
        torch.manual_seed(seed)
        flip = bool(torch.rand(1) < 0.5)
        order, *factors, _ = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        _, numbers = draws.generators(seed)
        assert draws.mirrored(0.5, numbers) == flip
        changes = draws.colours(0.2, numbers)
        assert [change.kind for change in changes] == [kind for kind in order.tolist() if kind < 3]
        assert all(change.factor == factors[change.kind] for change in changes)
        mirrored += flip
    assert 15 < mirrored < 45
    assert not draws.mirrored(0.0, numbers)


def test_erasures_are_timms() -> None:
    erase = RandomErasing(ERASED, mode="const", max_count=1, device="cpu")
    found = 0
    for seed in range(200):
        random.seed(seed)
        expected = erase(torch.ones(1, 30, 40))[0]
        box = draws.erasure(30, 40, random.Random(seed))
        made = torch.ones(30, 40)
        if box is not None:
            made[box.top : box.top + box.height, box.left : box.left + box.width] = 0
            found += 1
        assert torch.equal(made, expected)
    assert 30 < found < 70


def test_draws_leave_everybody_elses_generators_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    numbers, torchs = draws.generators(5)
    draws.crop(20, 30, (0.5, 1.0), numbers), draws.mirrored(0.5, torchs), draws.colours(0.2, torchs)
    draws.erasure(20, 30, numbers)
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(3), expected[2])


def test_seeds_depend_on_every_part() -> None:
    base = draws.draw_seed(0, 0, "a", 0)
    others = {draws.draw_seed(*of) for of in ((1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1))}
    assert len({base, *others}) == 5
    assert draws.draw_seed(0, 0, "a", 0) == base
