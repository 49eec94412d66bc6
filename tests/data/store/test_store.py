from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import re
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from tests.data.pictures import config, encoded, fill, ids, opened, picture
from zoo.base.files import cache_dir
from zoo.data import DataOptions, eval_batches, open_dataset, store_side
from zoo.data.batches import maker
from zoo.data.store import scan, store
from zoo.data.store.decode import resized
from zoo.models.preprocessing import DataConfig

SHAPES = [(20, 16), (16, 20), (16, 16), (64, 9), (9, 64), (300, 300), (21, 20), (3, 3), (19, 400)]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Images of every kind of shape and of several modes."""
    for block, (split, label) in enumerate(itertools.product(("train", "test"), ("a", "b"))):
        (tmp_path / split / label).mkdir(parents=True)
        for number, (width, height) in enumerate(SHAPES):
            image = picture(number + 50 * block, width, height)
            image = image.convert(["RGB", "L", "RGB"][number % 3])
            (tmp_path / split / label / f"{number}.png").write_bytes(encoded(image))
    return tmp_path


def stores() -> list[Path]:
    return sorted((cache_dir() / "stores").glob("*.store"))


def by_timm(part: object, settings: DataConfig) -> torch.Tensor:
    transform = create_transform(**settings.as_dict(), is_training=False)
    mode = "RGB" if settings.input_size[0] == 3 else "L"
    return torch.stack([transform(part.image(i).convert(mode)) for i in range(len(part))])  # type: ignore[attr-defined]


def by_us(part: object, settings: DataConfig) -> torch.Tensor:
    return torch.cat([batch.images for batch in eval_batches(part, config=settings, batch_size=4)])  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [15, 16, 24])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.9])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_from_the_store_is_timms_own(
    odd: Path, side: int, crop_pct: float, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DataConfig((3, side, side), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), interpolation, crop_pct)
    found = opened(odd, image_size=store_side(settings), interpolation=interpolation)
    assert found.test.stored(0, store_side(settings) or 0, interpolation) is not None
    expected = by_timm(found.test, settings)
    read: list[int] = []
    real = maker.decode
    monkeypatch.setattr(maker, "decode", lambda data, **to: (read.append(1), real(data, **to))[1])
    assert torch.equal(by_us(found.test, settings), expected)
    assert len(read) == 2  # only the picture of 19 x 400 is too long for the store, once per class


@pytest.mark.parametrize(
    "settings",
    [
        config(crop_mode="squash"),
        config(crop_mode="border"),
        config(channels=1),
        config(crop_pct=1.25),  # resized to less than the input: the crop pads
        DataConfig((3, 12, 20), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9),
    ],
    ids=["squash", "border", "grey", "padded", "not square"],
)
def test_other_transforms_are_timms_own_too(odd: Path, settings: DataConfig) -> None:
    found = opened(odd, image_size=store_side(settings) or 20)
    assert torch.equal(by_us(found.test, settings), by_timm(found.test, settings))


def test_a_store_of_another_size_or_interpolation_is_left_alone(odd: Path) -> None:
    found = opened(odd, image_size=20)
    for settings in (config(side=24), DataConfig((3, 16, 16), (0.5,) * 3, (0.5,) * 3, "bilinear", 0.8)):
        assert torch.equal(by_us(found.test, settings), by_timm(found.test, settings))


def test_a_second_run_decodes_nothing(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(odd, image_size=20)
    before = [(path.name, path.read_bytes()) for path in stores()]
    monkeypatch.setattr(scan, "decode", None)
    second = opened(odd, image_size=20)
    assert [(path.name, path.read_bytes()) for path in stores()] == before
    assert torch.equal(by_us(first.train, config()), by_us(second.train, config()))


def test_the_test_parts_store_serves_every_choice_of_training_images(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    names = []
    for seed in (0, 1):
        opened(tmp_path, image_size=20, train_per_class=5, seed=seed)
        names.append({path.name for path in stores()})
    assert len(names[0]) == 2
    assert len(names[1]) == 3


@pytest.mark.parametrize("damage", ["truncated", "header", "index", "empty"])
def test_a_damaged_file_is_found_out_and_made_again(odd: Path, damage: str) -> None:
    opened(odd, image_size=20)
    path = stores()[0]
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    if damage == "truncated":
        del spoilt[-1000:]
    elif damage == "header":
        spoilt[9] ^= 1
    elif damage == "index":
        spoilt[-40] ^= 1
    else:
        spoilt.clear()
    path.write_bytes(spoilt)
    opened(odd, image_size=20)
    assert path.read_bytes() == whole


def test_damaged_pixels_are_decoded_from_the_source_instead(odd: Path) -> None:
    found = opened(odd, image_size=20)
    expected = by_timm(found.test, config())
    assert stores()
    for path in stores():
        data = bytearray(path.read_bytes())
        for at in range(100, 100 + 20 * 20 * 3 * 4, 300):
            data[at] ^= 0xFF
        path.write_bytes(data)
    again = opened(odd, image_size=20)
    assert torch.equal(by_us(again.test, config()), expected)
    torch.cat([batch.images for batch in eval_batches(again.train, config=config(), batch_size=4)])
    assert stores() == []  # the next run makes them anew
    assert torch.equal(by_us(opened(odd, image_size=20).test, config()), expected)


def test_a_store_that_does_not_fit_is_not_made(odd: Path) -> None:
    found = opened(odd, image_size=20, store_bytes=1000)
    assert "no decoded store: the images take more than 0.0 GiB" in " ".join(found.notes)
    assert stores() == []
    assert torch.equal(by_us(found.test, config()), by_timm(found.test, config()))


def test_what_does_not_fit_is_decoded_and_the_rest_comes_from_the_store(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 18 * 20 * 20 * 3 + 5000
    found = opened(odd, image_size=20, store_bytes=limit)
    (note,) = [note for note in found.notes if "decoded store" in note]
    assert re.fullmatch(r"\d+ images are not in the decoded store: the images take more than .* GiB; such .*", note)
    assert 0 < sum(path.stat().st_size for path in stores()) < limit + 2000
    expected = by_timm(found.train, config())
    read: list[int] = []
    real = maker.decode
    monkeypatch.setattr(maker, "decode", lambda data, **to: (read.append(1), real(data, **to))[1])
    assert torch.equal(by_us(found.train, config()), expected)
    assert 0 < len(read) < len(found.train)
    # A run that finds it full reads no known image again in the hope of room.
    monkeypatch.setattr(scan, "decode", None)
    assert note in opened(odd, image_size=20, store_bytes=limit).notes


def test_a_nearly_full_disk_gets_no_store(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RESERVE", 1 << 60)
    found = opened(odd, image_size=20)
    assert "no decoded store: the disk is nearly full" in " ".join(found.notes)
    assert len(by_us(found.test, config())) == 18


def test_an_unwritable_cache_costs_time_only(odd: Path) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "stores").write_text("a file where the folder should be")
    found = opened(odd, image_size=20)
    assert "no decoded store: the cache cannot be written" in " ".join(found.notes)
    assert len(by_us(found.test, config())) == 18


def test_the_stores_used_longest_ago_go_first(tmp_path: Path) -> None:
    roots = [fill(tmp_path / str(n), {"a": 8, "b": 8}, start=100 * n, size=(20, 20)) for n in range(3)]
    one = 16 * 20 * 20 * 3 + 2000
    for root in roots[:2]:
        opened(root, image_size=20, store_bytes=3 * one)
    for path in stores():
        os.utime(path, (1000, 1000))
    opened(roots[0], image_size=20, store_bytes=3 * one)  # used again just now
    kept = [path for path in stores() if path.stat().st_mtime > 1000]
    opened(roots[2], image_size=20, store_bytes=2 * one)
    assert kept[0] in stores()
    assert len(stores()) == 2


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 8, "b": 8})
    (cache_dir() / "stores").mkdir(parents=True)
    left = cache_dir() / "stores" / ".1-a.building.tmp"
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    opened(tmp_path, image_size=20)
    assert not left.exists()


def test_pickled_parts_open_the_file_themselves_and_survive_its_loss(odd: Path) -> None:
    found = opened(odd, image_size=20)
    data = pickle.dumps(found.test)
    assert len(data) < 20_000  # no pixels travel
    expected = by_us(found.test, config())
    assert torch.equal(by_us(pickle.loads(data), config()), expected)
    for path in stores():
        path.unlink()
    assert torch.equal(by_us(pickle.loads(data), config()), expected)


def test_equal_images_are_stored_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.png").write_bytes(encoded(picture(ord(name), 20, 20)))
        (tmp_path / name / "other.png").write_bytes(encoded(picture(ord(name) + 50, 20, 20)))
    opened(tmp_path, image_size=20)
    assert stores()[0].stat().st_size < 5 * 20 * 20 * 3


def test_resizing_is_what_torchvision_does() -> None:
    image = Image.fromarray(np.arange(30 * 50 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 50, 3))
    assert resized(image, 20, "bicubic").size == (33, 20)
    assert resized(image, 30, "bicubic") is image


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the images that the scan decodes."""
    read: list[int] = []
    real = scan.decode
    monkeypatch.setattr(scan, "decode", lambda *given, **to: (read.append(1), real(*given, **to))[1])
    return read


def test_another_choice_of_training_images_decodes_the_new_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    first = opened(tmp_path, image_size=20, train_per_class=5)
    read = counted(monkeypatch)
    second = opened(tmp_path, image_size=20, train_per_class=5, seed=1)
    new = ids(second.train) | ids(second.val)
    assert len(read) == len(new - ids(first.train) - ids(first.val)) < 10
    read.clear()
    whole = opened(tmp_path, image_size=20)
    assert len(read) == 40 - len(new | ids(first.train) | ids(first.val))
    assert whole.train.is_stored(20, "bicubic")
    assert not whole.train.is_stored(21, "bicubic") and not whole.train.is_stored(20, "bilinear")


def test_the_same_images_elsewhere_are_in_the_store_already(tmp_path: Path) -> None:
    one, other = (fill(tmp_path / name, {"a": 8, "b": 8}) for name in ("one", "other"))
    opened(one, image_size=20)
    before = stores()
    found = opened(other, image_size=20)
    assert stores() == before
    assert found.train.is_stored(20, "bicubic")


def elsewhere(root: Path, prepare: Callable[[], None] = lambda: None) -> BaseProcess:
    """Another process that opens the images."""

    def work() -> None:
        prepare()
        opened(root, image_size=20)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_killed_run_leaves_its_work_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "images", {"a": 40, "b": 40}, size=(20, 20))

    def prepare() -> None:
        store.SEGMENT, scan.REMEMBERED = 10 * 20 * 20 * 3, 0.0
        real, left = scan.decode, itertools.count(45, -1)

        def decode(*given: Any, **to: Any) -> Any:
            if next(left) > 0:
                return real(*given, **to)
            while not stores():  # threads decode ahead of what is written
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        scan.decode = decode

    killed = elsewhere(root, prepare)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    assert stores()
    read = counted(monkeypatch)
    found = opened(root, image_size=20)
    assert 0 < len(read) < 80
    assert torch.equal(by_us(found.train, config()), by_timm(found.train, config()))


def test_an_interruption_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a": 100, "b": 100})
    done: list[int] = []

    def stop(stage: str, count: int, total: int) -> None:
        done.append(count)
        if count > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(str(tmp_path), DataOptions(image_size=20), stop)
    read = counted(monkeypatch)
    opened(tmp_path, image_size=20)
    assert len(read) == 200 - done[-1]


def test_two_runs_at_once_do_not_disturb_each_other(odd: Path) -> None:
    both = [elsewhere(odd), elsewhere(odd)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    found = opened(odd, image_size=20)
    assert torch.equal(by_us(found.test, config()), by_timm(found.test, config()))
    assert list((cache_dir() / "stores").glob("*.tmp")) == []


def test_a_store_that_is_cleared_while_in_use_stays_readable(odd: Path) -> None:
    found = opened(odd, image_size=20)
    expected = by_us(found.test, config())
    for path in stores():
        path.unlink()
    assert torch.equal(by_us(found.test, config()), expected)


def test_finished_files_never_take_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 20 * 20 * 3
    monkeypatch.setattr(store, "SEGMENT", 10 * one)
    limit = 60 * (one + 100)
    for number in range(4):
        opened(fill(tmp_path / str(number), {"a": 20, "b": 20}, start=100 * number, size=(20, 20)), image_size=20,
               store_bytes=limit)  # fmt: skip
        assert sum(path.stat().st_size for path in stores()) <= limit
    assert len(stores()) == 6
