from __future__ import annotations

import zipfile

import pytest

from benchmarks.samples import draw, fold


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for part, count in (("train", 12), ("val", 6)):
            for label in ("a", "b"):
                for number in range(count):
                    file.writestr(f"{part}/{label}/{number:02}.jpg", f"{part} {label} {number}")
    return path


def names(folder, part):
    return sorted(path.relative_to(folder / part).as_posix() for path in (folder / part).rglob("*.jpg"))


def test_all_images_are_there_in_their_parts(archive, tmp_path):
    drawn = draw(archive, tmp_path / "all", 0)
    assert drawn.classes == ("a", "b")
    assert drawn.counts == {"train": 24, "val": 0, "test": 12}
    assert len(names(drawn.folder, "train")) == 24
    assert (drawn.folder / "test" / "a" / "03.jpg").read_text() == "val a 3"  # the archive's val is what is reported


def test_a_seed_draws_the_training_images_and_no_others(archive, tmp_path):
    first, again, other = (
        draw(archive, tmp_path / str(number), seed, train=3, test=4) for number, seed in enumerate((0, 0, 1))
    )
    assert first.sha256 == again.sha256 != other.sha256
    assert names(first.folder, "train") == names(again.folder, "train") != names(other.folder, "train")
    assert names(first.folder, "test") == names(other.folder, "test")
    assert first.counts == {"train": 6, "val": 0, "test": 8}


def test_choosing_images_are_not_among_the_reported(archive, tmp_path):
    drawn = draw(archive, tmp_path / "val", 0, val=2)
    assert drawn.counts == {"train": 24, "val": 4, "test": 8}
    assert not set(names(drawn.folder, "val")) & set(names(drawn.folder, "test"))


def test_a_fold_judges_by_other_training_images(archive, tmp_path):
    for number, seed in enumerate((0, 0, 1)):
        fold(archive, tmp_path / str(number), seed, train=3, judge=4)
    first, again, other = (tmp_path / str(number) for number in range(3))
    chosen, judges = names(first, "train"), names(first, "test")
    assert (len(chosen), len(judges)) == (6, 8) and not set(chosen) & set(judges)
    assert all(path.read_text().startswith("train") for path in first.rglob("*.jpg")), "val is left alone"
    assert (chosen, judges) == (names(again, "train"), names(again, "test"))
    assert chosen != names(other, "train") and judges != names(other, "test")


def test_an_archive_without_parts_is_all_training(tmp_path):
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as file:
        for number in range(5):
            file.writestr(f"a/{number}.jpg", "an image")
    fold(tmp_path / "plain.zip", tmp_path / "out", 0, train=2, judge=9)
    assert len(names(tmp_path / "out", "train")) == 2 and len(names(tmp_path / "out", "test")) == 3
