from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from tests.data.pictures import ids, opened


def test_digits_have_a_fixed_stratified_split() -> None:
    one, other = opened("digits", seed=0), opened("digits", seed=7)
    assert len(one.train) + len(one.val) == 1437
    assert len(one.test) == 360
    assert one.test.samples == other.test.samples  # results compare whatever the seed
    assert one.val.samples != other.val.samples
    assert all(35 <= count <= 37 for count in one.test.class_counts())
    assert not ids(one.test) & (ids(one.train) | ids(one.val))
    assert (one.selected_on, one.reported_on, one.hflip) == ("val (cut from train)", "test", False)
    assert one.classes == tuple("0123456789")


def test_digits_are_scikit_learns() -> None:
    bunch = load_digits()
    part = opened("digits").test
    for index in range(0, len(part), 40):
        row = int(part.id(index).split("/")[-1].removesuffix(".png"))
        pixels = np.asarray(part.image(index))
        assert pixels.shape == (8, 8, 3)
        assert np.abs(pixels[..., 0] / 255 * 16 - bunch.images[row]).max() < 0.04
        assert part.labels[index] == bunch.target[row]
