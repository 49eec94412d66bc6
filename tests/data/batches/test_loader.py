from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.pictures import config, encoded, fill, opened
from zoo.data import Batch, Dataset, TrainLoader, auto_workers, class_weights, eval_batches, is_quick, train_loader
from zoo.data.splits import roles
from zoo.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    fill(tmp_path, {"train/a": 20, "train/b": 9, "val/a": 2, "val/b": 2, "test/a": 5, "test/b": 5})
    return opened(tmp_path, image_size=20)


def loader(found: Dataset, **options: Any) -> TrainLoader:
    settings: dict[str, Any] = {"config": config(), "augment": "strong", "batch_size": 8, "seed": 0, **options}
    return train_loader(found.train, **settings)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_is_a_function_of_seed_and_epoch(data: Dataset) -> None:
    first = list(loader(data).epoch(1))
    assert same(first, list(loader(data).epoch(1)))
    for changed in (list(loader(data).epoch(2)), list(loader(data, seed=1).epoch(1))):
        assert [b.indices.tolist() for b in changed] != [b.indices.tolist() for b in first]


def test_pixels_follow_the_sample_wherever_it_comes_in_the_epoch(data: Dataset) -> None:
    eights = {int(i): image for b in loader(data).epoch(1) for i, image in zip(b.indices, b.images, strict=True)}
    fours = {
        int(i): image for b in loader(data, batch_size=4).epoch(1) for i, image in zip(b.indices, b.images, strict=True)
    }
    common = eights.keys() & fours.keys()
    assert len(common) > 20
    assert all(torch.equal(eights[i], fours[i]) for i in common)
    later = {int(i): image for b in loader(data).epoch(2) for i, image in zip(b.indices, b.images, strict=True)}
    assert not any(torch.equal(eights[i], later[i]) for i in eights.keys() & later.keys())


@pytest.mark.parametrize("stored", [True, False])
def test_workers_change_nothing_and_persist(tmp_path: Path, stored: bool) -> None:
    found = opened(fill(tmp_path, {"a": 20, "b": 20}), image_size=20 if stored else None)
    alone, helped = loader(found), loader(found, workers=2)
    for epoch, start in ((1, 0), (2, 1), (1, 2)):
        assert same(list(alone.epoch(epoch, start)), list(helped.epoch(epoch, start)))
    abandoned = helped.epoch(3)
    next(abandoned)
    abandoned.close()
    assert same(list(alone.epoch(4)), list(helped.epoch(4)))
    helped.close()
    own, theirs = (eval_batches(found.test, config=config(), batch_size=3, workers=count) for count in (0, 2))
    assert same(list(own), list(theirs))
    assert same(list(own), list(theirs))  # once more: iterating starts again
    theirs.close()


def test_the_callers_generators_are_left_alone(data: Dataset) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    batches = loader(data, balance="sampler").epoch(1)
    next(batches), next(batches)
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(3), expected[2])


def test_the_callers_draws_change_nothing(data: Dataset) -> None:
    calm = list(loader(data).epoch(1))
    disturbed = []
    for batch in loader(data).epoch(1):
        torch.rand(7), np.random.rand(3), random.random()
        disturbed.append(batch)
    assert same(calm, disturbed)


def test_resuming_skips_without_reading(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(loader(data).epoch(5))
    fresh = loader(data)
    made: list[int] = []
    real = fresh._feed.maker.make
    monkeypatch.setattr(fresh._feed.maker, "make", lambda keys: (made.append(len(keys)), real(keys))[1])
    assert same(list(fresh.epoch(5, start_step=2)), whole[2:])
    assert len(made) == len(whole) - 2


def test_the_last_incomplete_batch_is_dropped_in_training(data: Dataset) -> None:
    batches = list(loader(data).epoch(1))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    assert loader(data).steps_per_pass == 3
    seen = [int(i) for batch in batches for i in batch.indices]
    assert len(set(seen)) == 24


def test_a_set_smaller_than_a_batch_is_one_batch(data: Dataset) -> None:
    (batch,) = loader(data, batch_size=64).epoch(1)
    assert loader(data, batch_size=64).steps_per_pass == 1
    assert sorted(batch.indices.tolist()) == list(range(29))


def test_batches_are_what_they_say(data: Dataset) -> None:
    batch = next(loader(data, augment="none").epoch(1))
    assert batch.images.shape == (8, 3, 16, 16)
    assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (torch.float32, torch.int64, torch.int64)
    assert batch.labels.tolist() == [data.train.labels[i] for i in batch.indices]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_every_global_batch(data: Dataset, world: int) -> None:
    whole = list(loader(data).epoch(1))
    shares = [list(loader(data, rank=rank, world=world).epoch(1)) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([share[step].images for share in shares]), batch.images)
        assert {len(share[step]) for share in shares} == {8 // world}


def test_processes_share_evaluation_without_padding(data: Dataset) -> None:
    parts = [eval_batches(data.test, config=config(), batch_size=4, rank=rank, world=3) for rank in range(3)]
    seen = [int(i) for part in parts for batch in part for i in batch.indices]
    assert sorted(seen) == list(range(10))
    assert [len(part) for part in parts] == [3, 3, 2]


def test_evaluation_takes_every_image_once_in_order(data: Dataset) -> None:
    batches = eval_batches(data.test, config=config(), batch_size=4)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


def test_weighted_sampling_evens_out_the_classes(data: Dataset) -> None:
    sampled = loader(data, balance="sampler", augment="light")
    batches = [batch for epoch in range(1, 8) for batch in sampled.epoch(epoch)]
    counts = Counter(int(label) for batch in batches for label in batch.labels)
    assert 0.8 < counts[0] / counts[1] < 1.25
    assert same(list(sampled.epoch(1)), list(loader(data, balance="sampler", augment="light").epoch(1)))
    # An image that is drawn twice in an epoch is not augmented twice in the same way.
    twice = [
        (int(i), image) for batch in sampled.epoch(1) for i, image in zip(batch.indices, batch.images, strict=True)
    ]
    repeated = next(i for i, count in Counter(i for i, _ in twice).items() if count > 1)
    first, second = [image for i, image in twice if i == repeated][:2]
    assert not torch.equal(first, second)


def test_class_weights_make_classes_count_alike(data: Dataset) -> None:
    weights = class_weights(data.train)
    counts = data.train.class_counts()
    assert weights[0] * counts[0] == pytest.approx(weights[1] * counts[1])
    assert sum(weight * count for weight, count in zip(weights, counts, strict=True)) == pytest.approx(29)


def test_an_unreadable_image_met_while_training_stops_it_by_name(data: Dataset, tmp_path: Path) -> None:
    found = opened(tmp_path)  # without a store, so that files are read
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"spoilt after the scan")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"the image train/.*png cannot be read\n  why: not an image"):
            list(loader(found, workers=workers).epoch(1))


def test_an_unreadable_image_is_skipped_and_counted_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "BIG", 1)
    fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    for name in ("train/a/00000.png", "train/a/00001.png", "test/a/00020.png"):
        (tmp_path / name).write_bytes(b"spoilt")
    found = opened(tmp_path, on_bad_image="skip")
    taken = loader(found, batch_size=4)
    batches = list(taken.epoch(1))
    bad = {s.id for s in found.train.samples} & {"train/a/00000.png", "train/a/00001.png"}
    assert set(taken.skipped) == bad
    assert sum(len(batch) for batch in batches) == 16 - len(bad)
    scoring = eval_batches(found.test, config=config(), batch_size=3)
    evaluated = list(scoring)
    assert set(scoring.skipped) == {"test/a/00020.png"}
    assert sum(len(batch) for batch in evaluated) == 3
    assert [bad.path for batch in evaluated for bad in batch.skipped] == ["test/a/00020.png"]


def test_digits_are_not_mirrored(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    ramp = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (32, 1, 3))
    for number in range(20):
        image = ramp.copy()
        image[0, number] = 7
        (tmp_path / "ab"[number % 2] / f"{number}.png").write_bytes(encoded(Image.fromarray(image)))
    found = opened(tmp_path)

    def mirrored(**options: Any) -> int:
        batches = loader(found, augment="light", batch_size=4, **options).epoch(1)
        return sum(int(image[0, 8, 0] > image[0, 8, -1]) for batch in batches for image in batch.images)

    assert mirrored() > 0
    assert mirrored(hflip=0.0) == 0
    found.train.hflip = False
    assert mirrored() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 10, "world": 4},
            r"a batch of 10 cannot be shared equally by 4 process\(es\)\n  fix: choose a multiple of 4, such as 8",
        ),
        ({"batch_size": 64, "world": 32}, "29 image.* are too few for 32 processes"),
        ({"balance": "evenly"}, "no way of balancing 'evenly'"),
    ],
)
def test_refusals(data: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loader(data, **options)


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [("cpu", 2, 0), ("cpu", 7, 0), ("cpu", 16, 2), ("cpu", 64, 4), ("cuda", 1, 0), ("cuda", 16, 8), ("mps", 4, 3)],
)
def test_workers_when_nobody_chose(device: str, available: int, expected: int) -> None:
    assert auto_workers(device, available, quick=False) == expected
    assert auto_workers(device, available, quick=True) == (expected if device == "cpu" else 0)


def test_only_batched_views_of_stored_images_are_quick(data: Dataset, tmp_path: Path) -> None:
    assert is_quick(data.train, config(), "none") and is_quick(data.train, config(), "standard")
    assert not is_quick(data.train, config(), "strong")
    assert not is_quick(data.train, config(side=24), "standard")
    assert not is_quick(opened(tmp_path, image_size=None).train, config(), "standard")


def test_passes_follow_one_another_where_epochs_are_not_as_long(data: Dataset) -> None:
    whole = loader(data, batch_size=4)
    assert whole.steps_per_pass == 7
    passes = [keys for number in range(4) for keys in whole.keys(number)]
    for steps in (3, 7, 10):
        assert [keys for epoch in range(20 // steps) for keys in whole.keys(epoch, 0, steps)] == passes[
            : 20 // steps * steps
        ]
        assert whole.keys(1, 2, steps) == whole.keys(1, 0, steps)[2:]
    assert same(list(whole.epoch(1, 2, 10)), list(whole.epoch(1, 5))[:2] + [
        batch for number in (2,) for batch in whole.epoch(number)][:6])  # fmt: skip
