"""Images without labels: nothing of the labels that a reference has comes to those who train and choose."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from tests.data.pictures import config, fill, ids, opened
from zoo.data import DataOptions, train_loader, unlabelled
from zoo.data.unlabelled import open_unlabelled
from zoo.errors import DataError

OPTIONS = DataOptions(image_size=20)


def table(folder: Path, labels: dict[str, str] | None, name: str = "target.csv") -> Path:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = ["path" if labels is None else "path,label"]
    lines += [path if labels is None else f"{path},{labels.get(path, 'magpie')}" for path in paths]
    (folder / name).write_text("\n".join(lines))
    return folder / name


def test_labels_stay_behind(tmp_path: Path) -> None:
    fill(tmp_path, {"x": 8})
    images, answers = open_unlabelled(str(table(tmp_path, {})), ("heron", "magpie"), OPTIONS)
    for part in (images.train, images.val):
        assert part.labels == [-1] * 8 and part.classes == ()
        assert {sample.label for sample in part.samples} == {-1}
    assert b"magpie" not in pickle.dumps(images), "nowhere in what training and choosing get, however deep"
    assert b"magpie" in pickle.dumps(answers), "and the search would find it"
    batch = next(train_loader(images.train, config=config(), augment="light", batch_size=4, seed=0).epoch(0))
    assert batch.labels.tolist() == [-1] * 4
    assert answers is not None and answers.test.labels == [1] * 8 and answers.val == (1,) * 8


def test_which_images_are_taken_does_not_depend_on_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabelled, "VAL_LIMIT", 5)
    fill(tmp_path, {"x": 20})
    paths = [f"x/{number:05d}.png" for number in range(20)]
    right = {path: "heron" if place < 3 else "magpie" for place, path in enumerate(paths)}
    wrong = {path: "magpie" if place % 2 else "heron" for place, path in enumerate(paths)}
    found = [open_unlabelled(str(table(tmp_path, labels)), ("heron", "magpie"), OPTIONS) for labels in (right, wrong)]
    found.append(open_unlabelled(str(table(tmp_path, None)), ("heron", "magpie"), OPTIONS))
    (one, first), (other, second), (bare, nothing) = found
    for images in (other, bare):
        assert images.fingerprint == one.fingerprint
        assert [images.val.id(place) for place in range(5)] == [one.val.id(place) for place in range(5)]
        assert [images.train.id(place) for place in range(20)] == [one.train.id(place) for place in range(20)]
    assert first is not None and second is not None and first.val != second.val
    assert nothing is None and any("has no labels" in note for note in bare.notes)


def test_a_limit_takes_some_whatever_their_labels_and_answers_may_be_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 9, "train/b": 9, "test/a": 3})
    options = DataOptions(image_size=20, limit=5)
    images, answers = open_unlabelled(str(tmp_path), ("a", "b"), options)
    assert len(images.train) == len(images.val) == 5 and answers is not None and len(answers.test) == 3
    assert f"5 of 18 images of {tmp_path.name} are used, as limited" in images.notes
    again, answers = open_unlabelled(str(tmp_path), ("other",), options, labelled=False)
    assert ids(again.train) == ids(images.train) and answers is None
    assert not any("classes that training does not know" in note for note in again.notes), "which nobody asks there"
    whole, _ = open_unlabelled(str(tmp_path), ("a", "b"), OPTIONS)
    assert not any("as limited" in note for note in whole.notes)


def test_splits_keep_their_work(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 4, "train/b": 3, "test/a": 2, "test/b": 1})
    images, answers = open_unlabelled(str(tmp_path), ("a", "b"), OPTIONS)
    assert len(images.train) == 7 and answers is not None
    assert (answers.split, len(answers.test)) == ("test", 3)
    assert not ids(answers.test) & ids(images.train)
    shutil.rmtree(tmp_path / "test")
    images, answers = open_unlabelled(str(tmp_path), ("a", "b"), OPTIONS)
    assert answers is not None and answers.split == "all images" and len(answers.test) == len(images.train) == 7


@pytest.mark.parametrize("folders", [("",), ("train/", "test/")])
def test_images_need_no_class_folders(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for place, folder in enumerate(folders):
        fill(tmp_path, {folder: 3}, start=10 * place)
    for ref in (tmp_path, shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path)):
        images, answers = open_unlabelled(str(ref), ("a", "b"), OPTIONS)
        assert len(images.train) == 3 and answers is None
        assert any("has no labels" in note for note in images.notes)
    with pytest.raises(DataError, match="no class folders"):
        opened(tmp_path)


def test_other_classes_are_said_and_not_scored(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "zebra": 2})
    images, answers = open_unlabelled(str(tmp_path), ("a", "b"), OPTIONS)
    assert len(images.train) == 4 and answers is None
    assert [note for note in images.notes if "classes that training does not know (zebra)" in note]


def test_images_that_the_result_is_for_are_not_trained_on(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    dataset = opened(tmp_path, image_size=20)
    images, _ = open_unlabelled(str(tmp_path), dataset.classes, OPTIONS, without=ids(dataset.test))
    assert ids(images.train) == ids(dataset.train) | ids(dataset.val)
    with pytest.raises(DataError, match="no images to train on"):
        open_unlabelled(
            str(tmp_path), ("a", "b"), OPTIONS, without=ids(dataset.train) | ids(images.train) | ids(dataset.test)
        )


def test_copies_of_images_that_the_result_is_for_are_not_trained_on_under_other_names(tmp_path: Path) -> None:
    fill(tmp_path / "labelled", {"a": 10, "b": 10})
    dataset = opened(tmp_path / "labelled", image_size=20)
    reported = sorted(ids(dataset.test))
    fill(tmp_path / "more", {"": 3}, start=50)
    for number, name in enumerate(reported):
        shutil.copy(tmp_path / "labelled" / name, tmp_path / "more" / f"copy-{number}.png")
    ref = str(tmp_path / "more")
    images, _ = open_unlabelled(ref, dataset.classes, OPTIONS, contents=dataset.contents["test"])
    assert len(images.train) == len(images.val) == 3 and not any("copy" in name for name in ids(images.train))
    left_out = f"{len(reported)} image(s) of more are not trained on: the result is measured on them"
    assert left_out in images.notes
    images, _ = open_unlabelled(ref, dataset.classes, OPTIONS)
    assert len(images.train) == 3 + len(reported) and left_out not in images.notes
    with pytest.raises(DataError, match="no images to train on"):
        open_unlabelled(str(tmp_path / "labelled"), ("a", "b"), OPTIONS,
                        contents=frozenset.union(*dataset.contents.values()))  # fmt: skip


def test_a_broken_image_is_said_or_left_out(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3})
    (tmp_path / "a" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 4 image\(s\) in .* cannot be read"):
        open_unlabelled(str(tmp_path), ("a", "b"), OPTIONS)
    images, _ = open_unlabelled(str(tmp_path), ("a", "b"), DataOptions(image_size=20, on_bad_image="skip"))
    assert len(images.train) == 3 and [image.path for image in images.bad] == ["a/bad.png"]
