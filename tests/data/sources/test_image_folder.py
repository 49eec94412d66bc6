from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.pictures import encoded, fill, opened, picture
from zoo.data import DataOptions
from zoo.data.sources import image_folder
from zoo.errors import DataError


def counts(root: Path) -> dict[str, dict[str, int]]:
    listing = image_folder.listing(str(root), DataOptions())
    return {
        split: {name: sum(item.label == name for item in items) for name in sorted({item.label for item in items})}
        for split, items in listing.splits.items()
    }


def test_class_folders_without_splits(tmp_path: Path) -> None:
    fill(tmp_path, {"bee": 2, "ant/deeper/still": 3})
    assert counts(tmp_path) == {"all": {"ant": 3, "bee": 2}}
    assert image_folder.listing(str(tmp_path), DataOptions()).classes == ("ant", "bee")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation", "dev"])
def test_split_folders_by_any_of_their_names(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"train/a": 2, "train/b": 2, f"{name}/a": 1, "test/b": 1})
    assert counts(tmp_path) == {"train": {"a": 2, "b": 2}, "val": {"a": 1}, "test": {"b": 1}}


def test_wrapper_folders_are_seen_through(tmp_path: Path) -> None:
    fill(tmp_path, {"data/insects/train/a": 1, "data/insects/train/b": 1, "data/insects/val/a": 1})
    assert set(counts(tmp_path)) == {"train", "val"}
    assert image_folder.listing(str(tmp_path), DataOptions()).splits["train"][0].id == "train/a/00000.png"


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    # Vehicles: "train" is a class here.
    fill(tmp_path, {"train": 2, "bus": 2})
    assert counts(tmp_path) == {"all": {"bus": 2, "train": 2}}


def test_hidden_files_and_litter_are_left_out_and_others_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 1, ".cache/x": 1, "__MACOSX/a": 1})
    (tmp_path / "a" / "._00000.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "loose.png").write_bytes(encoded(picture(99)))
    assert counts(tmp_path) == {"all": {"a": 1, "b": 1}}
    notes = " ".join(image_folder.listing(str(tmp_path), DataOptions()).notes)
    assert "1 file(s) without an image's extension left out, such as a/notes.txt" in notes
    assert "1 image(s) outside of every class folder left out, such as loose.png" in notes


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    fill(tmp_path / "real", {"x": 2})
    fill(tmp_path / "set", {"b": 1}, start=10)
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real" / "x")
    (tmp_path / "set" / "b" / "up").symlink_to(tmp_path / "set")
    assert counts(tmp_path / "set")["all"]["a"] == 2


@pytest.mark.parametrize(
    ("layout", "what", "fix"),
    [
        ({}, "there are no images in", "one folder per class"),
        ({".": 2}, "holds images but no class folders", "path` and `label` columns"),
        ({"a": 2, "b": 0}, "1 class folder(s) of", "put images into them"),
        ({"train/a": 2, "train/b": 0, "val/a": 1}, "hold no images: b", "remove them"),
        ({"a": 3}, "one class only: a", "add images of another class"),
        ({"train": 2, "test": 2}, "train/ hold no class folders", "train/<class>/<image>"),
        ({"train/a": 1, "val/a": 1, "valid/a": 1}, "two folders for the split val: val, valid", "keep one"),
        ({"val/a": 2, "val/b": 2, "test/a": 1}, "but no training split", "add a `train` split"),
    ],
)
def test_faulty_folders_say_what_to_do(tmp_path: Path, layout: dict[str, int], what: str, fix: str) -> None:
    fill(tmp_path, layout)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_empty_class_folder_of_a_validation_split_is_fine(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 0})
    dataset = opened(tmp_path)
    assert dataset.test.class_counts() == [2, 0]
    assert "val has no image of 1 class(es): b" in " ".join(dataset.notes)


def test_unlistable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("zoo.data.sources.image_folder.os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list .*\n  why: Permission denied"):
        opened(tmp_path)
