"""References: what the texts that people write mean, and how records and published cards have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.base import references


def test_what_is_on_the_hub_by_prefix_or_by_name() -> None:
    assert references.place_on_hub("hf:me/photos@v2") == ("me/photos", "v2")
    assert references.place_on_hub("hf:me/photos") == ("me/photos", None)
    assert references.place_on_hub("cifar10")[0] == "uoft-cs/cifar10"
    assert references.place_on_hub("digits") == references.place_on_hub("photos/") == (None, None)


@pytest.mark.parametrize(
    ("text", "form", "may_be"),
    [("me/net", True, True), ("me/net@v1", True, True), ("net", False, False), ("a/b/c", False, False),
     ("/net", False, False), ("runs/net", True, False)],
)  # fmt: skip
def test_which_texts_may_be_a_repository(
    text: str, form: bool, may_be: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert references.is_repo(references.revised(text)[0]) is form
    assert references.may_be_repo(text) is may_be


def test_a_record_means_the_same_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "photos"):
        (tmp_path / name).mkdir()
    assert references.recorded("photos") == str(tmp_path / "photos")
    assert references.recorded("./digits") == str(tmp_path / "digits")
    for ref in ("digits", "hf:me/photos", "gone"):
        assert references.recorded(ref) == ref


@pytest.mark.parametrize(
    ("recorded", "public"),
    [("/home/me/photos", "photos"), (r"C:\me\photos", "photos"), ("digits", "digits"), ("hf:me/photos", "hf:me/photos"),
     ("hf-hub:me/net@v1", "hf-hub:me/net@v1")],
)  # fmt: skip
def test_what_is_published_names_no_folder_of_this_machine(recorded: str, public: str) -> None:
    assert references.public(recorded) == public
    assert references.is_local(recorded) is (recorded != public)


def test_the_nearest_path_is_looked_for_part_by_part(tmp_path: Path) -> None:
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "photos" / "gone").symlink_to("nowhere")
    for text, found in {"fotos/train": "photos/train", "photos/trian": "photos/train", "photos/test": None,
                        "photos/gone": None, "zebras/train": None, "photos/train/x": None}.items():  # fmt: skip
        assert references.near_path(str(tmp_path / text)) == (str(tmp_path / found) if found else None)
    assert references.near_path("x" * 5000) is None is references.near_path("a\0b")
