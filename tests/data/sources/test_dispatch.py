"""Which source a reference means, and that one more is one file and one line."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.data.pictures import fill, opened
from zoo.data.sources import archive, digits, dispatch, hub, image_folder, table
from zoo.errors import DataError

# What a file `zoo/data/sources/playlist.py` would hold: a text file with the path of an image in each line.
PLAYLIST = """
from pathlib import Path

from zoo.data.sources.image_folder import FileReader
from zoo.data.types import Item, Listing


def claims(ref):
    return ref.endswith(".m3u") and Path(ref).is_file()


def listing(ref, options, on_progress):
    paths = [Path(line) for line in Path(ref).read_text().splitlines()]
    items = [Item(path.name, path.parent.name, str(path), path.stat().st_size, 0) for path in paths]
    return Listing("playlist", f"playlist:{ref}", {"all": items}, ("ant", "bee"), FileReader())
"""


def test_one_more_source_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "images", {"ant": 6, "bee": 6})
    path = tmp_path / "insects.m3u"
    path.write_text("\n".join(map(str, sorted((tmp_path / "images").rglob("*.png")))))
    playlist = ModuleType("playlist")
    exec(PLAYLIST, playlist.__dict__)
    monkeypatch.setattr(dispatch, "SOURCES", [*dispatch.SOURCES, playlist])
    found = opened(path)
    assert (found.name, found.classes) == ("playlist", ("ant", "bee"))
    assert len(found.train) + len(found.val) + len(found.test) == 12


@pytest.mark.parametrize(
    ("ref", "source"),
    [("hf:me/photos", hub), ("cifar10", hub), ("digits", digits), ("./digits", image_folder), ("photos", image_folder),
     ("photos.zip", image_folder), ("list.csv", table), ("more.tar.gz", archive), ("letter.pdf", None), ("gone", None)],
)  # fmt: skip
def test_each_reference_is_of_one_source(
    ref: str, source: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "photos", "photos.zip"):
        (tmp_path / name).mkdir()
    for name in ("list.csv", "more.tar.gz", "letter.pdf"):
        (tmp_path / name).touch()
    assert next((each for each in dispatch.SOURCES if each.claims(ref)), None) == source


@pytest.mark.parametrize(
    ("ref", "meant"),
    [("data/insets", "data/insects"), ("dta/insects", "data/insects"), ("./insects.zp", "insects"),
     ("list.cvs", "list.csv"), ("insect", "insects or mnist"), ("digit", "digits or dtd or ./digits"),
     ("cifar1O", "cifar10 or cifar100"), ("data/moths", None)],
)  # fmt: skip
def test_what_is_not_there_suggests_names_and_paths_that_are(
    ref: str, meant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/insects", "insects", "digits"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    with pytest.raises(DataError) as caught:
        opened(ref)
    rest = f"for a data set on the Hub write hf:{ref}; or " if ref.startswith(("data/", "dta/")) else ""
    hint = f"did you mean {meant}? Otherwise " if meant else ""
    assert caught.value.fix.startswith(f"{hint}{rest}give a name (see `zoo datasets`), ")
