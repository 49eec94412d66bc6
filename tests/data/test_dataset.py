from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.pictures import encoded, fill, ids, opened, picture
from zoo.data import BadImage, DataOptions, open_dataset, open_evaluation
from zoo.data.splits import roles
from zoo.data.store import scan
from zoo.errors import DataError


def sizes(opened_set: object) -> tuple[int, int, int]:
    return len(opened_set.train), len(opened_set.val), len(opened_set.test)  # type: ignore[attr-defined]


def test_train_val_and_test_each_do_their_work(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "test/a": 3, "test/b": 3})
    found = opened(tmp_path)
    assert sizes(found) == (10, 4, 6)
    assert (found.selected_on, found.reported_on) == ("val", "test")
    assert all(sample.id.startswith("val/") for sample in found.val.samples)


def test_train_and_val_only(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 10, "train/b": 5, "val/a": 2, "val/b": 2})
    found = opened(tmp_path)
    assert sizes(found) == (12, 3, 4)
    assert (found.selected_on, found.reported_on) == ("val (cut from train)", "val")
    assert all(sample.id.startswith("train/") for sample in found.val.samples)
    assert found.val.class_counts() == [2, 1]


def test_train_and_test_only(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    found = opened(tmp_path, val_fraction=0.3)
    assert sizes(found) == (14, 6, 4)
    assert (found.selected_on, found.reported_on) == ("val (cut from train)", "test")


def test_one_split_is_cut_twice(tmp_path: Path) -> None:
    found = opened(fill(tmp_path, {"a": 50, "b": 25}))
    assert sizes(found) == (48, 12, 15)
    assert found.test.class_counts() == [10, 5]
    assert (found.selected_on, found.reported_on) == ("val (cut from all images)", "test (cut from all images)")
    assert not ids(found.train) & ids(found.val) and not ids(found.train) & ids(found.test)
    assert opened(tmp_path, seed=1).test.samples != found.test.samples
    assert found.counts()["report"] == {"n": 15, "per_class": [10, 5]}


def test_the_only_split_may_be_called_train(tmp_path: Path) -> None:
    found = opened(fill(tmp_path, {"train/a": 10, "train/b": 10}))
    assert found.reported_on == "test (cut from train)"


def test_a_fold_of_the_training_images_reports_instead_of_the_test_part(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 10, "test/a": 2, "test/b": 2})
    parts = [opened(tmp_path, fold=(number, 5)) for number in range(1, 6)]
    assert {sizes(part) for part in parts} == {(19, 5, 6)}
    assert parts[1].reported_on == "fold 2 of 5 of train" and parts[1].selected_on == "val (cut from train)"
    reported = [name for part in parts for name in ids(part.test)]
    assert len(reported) == len(set(reported)) == 30 and all(name.startswith("train/") for name in reported)
    for part in parts:
        assert not ids(part.test) & (ids(part.train) | ids(part.val))
    assert len({part.fingerprint for part in parts}) == 5


def test_a_fold_of_few_images_is_of_these_few(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 40, "b": 40})
    few, whole = opened(tmp_path, train_per_class=10, fold=(1, 2)), opened(tmp_path, train_per_class=10)
    assert ids(few.test) | ids(few.train) | ids(few.val) == ids(whole.train) | ids(whole.val)
    assert len(few.test) == 10 and not ids(few.test) & ids(whole.test)


def test_the_order_in_which_a_disk_lists_files_changes_nothing(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"a": 12, "b": 12})
    two = tmp_path / "two"
    for path in sorted(one.rglob("*.png"), reverse=True):
        (two / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, two / path.parent.name)
    first, second = opened(one), opened(two)
    assert first.train.samples == second.train.samples
    assert first.fingerprint == second.fingerprint


def test_few_shot_counts_the_images_used_for_choosing(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 30, "train/b": 30, "test/a": 5, "test/b": 5})
    found = opened(tmp_path, train_per_class=10)
    assert sizes(found) == (16, 4, 10)
    assert found.train.class_counts() == [8, 8]


def test_few_shot_with_a_given_val_takes_its_share_from_there(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 30, "train/b": 30, "val/a": 9, "val/b": 9, "test/a": 5, "test/b": 5})
    found = opened(tmp_path, train_per_class=10)
    assert sizes(found) == (16, 4, 10)
    assert found.selected_on == "val"
    assert all(sample.id.startswith("val/") for sample in found.val.samples)


def test_one_shot_has_nothing_to_set_aside_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    found = opened(tmp_path, train_per_class=1)
    assert sizes(found) == (2, 2, 4)
    assert found.val.samples == found.train.samples
    assert found.selected_on == "train (too few images to set any aside)"


def test_few_shot_of_one_split_cuts_the_test_part_first(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 50, "b": 50})
    few, whole = opened(tmp_path, train_per_class=5), opened(tmp_path)
    assert sizes(few) == (8, 2, 20)
    assert few.test.samples == whole.test.samples


def test_a_class_with_fewer_than_asked_for_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 30, "train/b": 3, "test/a": 5, "test/b": 5})
    assert "1 class(es) have fewer than the images asked for: b" in opened(tmp_path, train_per_class=10).notes


def test_limit_cuts_the_training_images_in_proportion(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 40, "train/b": 10, "test/a": 5, "test/b": 5})
    found = opened(tmp_path, limit=10)
    assert sizes(found) == (7, 3, 10)  # of the 8 and 2 a fifth is cut, but at least one of each class
    assert [one + other for one, other in zip(found.train.class_counts(), found.val.class_counts(), strict=True)] == [
        8,
        2,
    ]


def test_exact_duplicates_never_straddle_a_cut(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(30):
            data = encoded(picture(number // 3 + (100 if name == "b" else 0)))
            (tmp_path / name / f"{number:02d}.png").write_bytes(data)
    for seed in range(5):
        found = opened(tmp_path, seed=seed)
        contents = [{part.raw(i) for i in range(len(part))} for part in (found.train, found.val, found.test)]
        assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]
        assert sum(sizes(found)) == 60
        few = opened(tmp_path, seed=seed, train_per_class=9)
        assert not {few.train.raw(i) for i in range(len(few.train))} & {few.val.raw(i) for i in range(len(few.val))}


def test_duplicates_across_given_splits_are_reported_and_left(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    shutil.copy(tmp_path / "train/a/00000.png", tmp_path / "test/a/copy.png")
    shutil.copy(tmp_path / "train/a/00001.png", tmp_path / "train/b/copy.png")
    found = opened(tmp_path)
    assert len(found.test) == 5
    notes = " ".join(found.notes)
    assert "1 image(s) of test are exact copies of images used in training" in notes
    assert "2 image(s) are exact copies of others" in notes
    assert "1 image(s) appear under more than one class: train/a/00001.png and train/b/copy.png" in notes


def test_an_image_under_two_classes_is_named_wherever_the_cut_puts_it(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 20, "b": 20})
    assert not any("copies" in note or "more than one class" in note for note in opened(tmp_path).notes)
    shutil.copy(tmp_path / "a/00001.png", tmp_path / "b/copy.png")
    roles = set()
    for seed in range(30):
        found = opened(tmp_path, seed=seed)
        assert "1 image(s) are exact copies of others" in found.notes
        assert "1 image(s) appear under more than one class: a/00001.png and b/copy.png" in found.notes
        (role,) = (part.role for part in (found.train, found.val, found.test) if "b/copy.png" in ids(part))
        roles.add(role)
    assert roles == {"train", "val", "test"}


def test_copies_are_counted_and_some_under_two_classes_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 8, "b": 8})
    for number in range(5):
        shutil.copy(tmp_path / f"a/{number:05d}.png", tmp_path / f"b/copy{number}.png")
        shutil.copy(tmp_path / f"a/{number:05d}.png", tmp_path / f"a/copy{number}.png")
    notes = opened(tmp_path).notes
    assert "10 image(s) are exact copies of others" in notes
    (torn,) = (note for note in notes if "more than one class" in note)
    assert torn.startswith("5 image(s) appear") and torn.count(" and b/copy") == 3 and torn.endswith("… and 2 more")


def test_a_class_that_training_does_not_know_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 1, "val/wasp": 1})
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert caught.value.what.endswith("has 1 class(es) that training does not know: wasp")
    assert caught.value.why == "known classes: a, b"


def spoil(root: Path, count: int) -> None:
    for path in sorted(root.rglob("*.png"))[:count]:
        path.write_bytes(b"spoilt " + path.name.encode())


def test_unreadable_images_are_all_listed_before_training(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 30, "train/b": 30, "test/a": 3, "test/b": 3})
    spoil(tmp_path / "train" / "a", 22)
    spoil(tmp_path / "test", 1)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert caught.value.what == f"23 of 66 image(s) in {tmp_path} cannot be read"
    assert caught.value.why.count(".png: not an image in any known format") == 20
    assert caught.value.why.endswith("… and 3 more")
    assert "--on-bad-image skip" in caught.value.fix


def test_skip_leaves_them_out_and_counts_them(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    spoil(tmp_path / "train" / "a", 2)
    found = opened(tmp_path, on_bad_image="skip")
    assert sum(sizes(found)) == 24
    assert found.bad == tuple(
        BadImage(f"train/a/0000{number}.png", "not an image in any known format") for number in (0, 1)
    )
    assert not {bad.path for bad in found.bad} & (ids(found.train) | ids(found.val))


def test_the_scan_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 2})
    decoded: list[bytes] = []
    real = scan.decode
    monkeypatch.setattr(scan, "decode", lambda data, *_, **__: (decoded.append(data), real(data))[1])
    first = opened(tmp_path)
    assert len(decoded) == 16
    decoded.clear()
    assert opened(tmp_path).fingerprint == first.fingerprint
    assert decoded == []
    (tmp_path / "test/a/00012.png").write_bytes(encoded(picture(500, 30, 30)))
    changed = opened(tmp_path)
    assert len(decoded) == 1
    assert changed.fingerprint != first.fingerprint


def test_a_damaged_memory_of_scans_costs_time_only(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 6, "b": 6})
    first = opened(tmp_path / "set")
    path = scan.cache_dir() / "scan.sqlite"
    path.write_bytes(b"no database" * 500)
    assert opened(tmp_path / "set").fingerprint == first.fingerprint
    assert path.read_bytes().startswith(b"SQLite format 3")


def test_a_failing_read_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a": 6, "b": 6})

    def fail(self: object, locator: str) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.data.sources.image_folder.FileReader.read", fail)
        with pytest.raises(DataError, match=r"12 of 12 image.*\n  why: a/00000.png: Input/output error"):
            opened(tmp_path)
    assert sum(sizes(opened(tmp_path))) == 12


def test_the_fingerprint_follows_labels_classes_and_the_cut(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 12, "b": 12})
    prints = {
        opened(tmp_path, **options).fingerprint for options in ({}, {"seed": 1}, {"val_fraction": 0.4}, {"limit": 9})
    }
    (tmp_path / "b").rename(tmp_path / "c")
    prints.add(opened(tmp_path).fingerprint)
    assert len(prints) == 5


def test_many_images_are_verified_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "BIG", 10)
    fill(tmp_path, {"train/a": 8, "train/b": 8, "test/a": 2, "test/b": 2})
    spoil(tmp_path / "train", 1)
    found = opened(tmp_path, image_size=8)
    assert found.notes == ("20 images: verified as they are read, identical ones not looked for",)
    assert found.bad == ()
    index = next((i for i, s in enumerate(found.train.samples) if s.id == "train/a/00000.png"), None)
    if index is not None:
        with pytest.raises(DataError, match=r"the image train/a/00000.png cannot be read"):
            found.train.image(index)
    first = found.fingerprint
    (tmp_path / "train/b/00009.png").write_bytes(encoded(picture(7, 40, 40)))
    assert opened(tmp_path).fingerprint != first


@pytest.mark.parametrize(
    ("ref", "what", "fix"),
    [
        ("cifar1O", "there is no data set named 'cifar1O'", "did you mean cifar10 or cifar100"),
        (
            "no-such-thing",
            "no data set named",
            "a folder of class folders, a zip or tar archive of a folder, or a table",
        ),
        ("data/insects", "data/insects is not there", "for a data set on the Hub write hf:data/insects"),
        ("./insects.zip", "./insects.zip is not there", "a zip or tar archive of a folder"),
        ("images.csv", "images.csv is not there", "hf:ORG/NAME"),
        ("hf:cifar10", "hf:cifar10 does not name a data set", "write hf:ORG/NAME"),
    ],
)
def test_a_reference_to_nothing(ref: str, what: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(ref)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"neither a table nor an archive\n  why: its name ends in '.pdf'"):
        opened(tmp_path / "x.pdf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, "validation fraction is 0.0"),
        ({"val_fraction": 1.0}, "validation fraction is 1.0"),
        ({"train_per_class": 0}, "train_per_class is 0"),
        ({"limit": -3}, "limit is -3"),
        ({"on_bad_image": "replace"}, "on_bad_image is 'replace'"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DataOptions(**options)  # type: ignore[arg-type]


def test_too_few_images_to_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few images: 2 to train on, 0 to report on"):
        opened(fill(tmp_path, {"a": 1, "b": 1}))


def test_progress_is_told(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 20, "b": 20})
    told: list[tuple[str, int, int]] = []
    open_dataset(str(tmp_path), DataOptions(), lambda *news: told.append(news))
    assert told[-1] == ("checking the images", 40, 40)


class TestEvaluation:
    """A model that has its classes already is scored on another folder."""

    def test_labels_are_matched_by_name_in_the_models_order(self, tmp_path: Path) -> None:
        fill(tmp_path, {"bee": 2, "ant": 3})
        found = open_evaluation(str(tmp_path), ("wasp", "bee", "ant"), DataOptions())
        assert found.part.class_counts() == [0, 2, 3]
        assert (found.split, found.name) == ("all", tmp_path.name)

    def test_one_class_is_enough(self, tmp_path: Path) -> None:
        assert len(open_evaluation(str(fill(tmp_path, {"ant": 3})), ("ant", "bee"), DataOptions()).part) == 3

    def test_an_unknown_class_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path, {"ant": 1, "moth": 1})
        with pytest.raises(DataError, match=r"1 class\(es\) that training does not know: moth"):
            open_evaluation(str(tmp_path), ("ant", "bee"), DataOptions())

    def test_test_comes_before_val_before_train(self, tmp_path: Path) -> None:
        fill(tmp_path, {"train/a": 3, "train/b": 1, "val/a": 2, "test/a": 1})
        assert len(open_evaluation(str(tmp_path), ("a", "b"), DataOptions()).part) == 1
        assert len(open_evaluation(str(tmp_path), ("a", "b"), DataOptions(), split="val").part) == 2
        shutil.rmtree(tmp_path / "test")
        assert open_evaluation(str(tmp_path), ("a", "b"), DataOptions()).split == "val"
        with pytest.raises(DataError, match="has no split test\n  fix: choose one of: val, train"):
            open_evaluation(str(tmp_path), ("a", "b"), DataOptions(), split="test")
