from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.pictures import encoded, fill, ids, opened, picture
from zoo.base.files import cache_dir
from zoo.data import DataOptions
from zoo.data.sources import archive as module
from zoo.data.sources.archive import ArchiveReader
from zoo.errors import DataError


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(folder, arcname=".")
    return target


PACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "deflated.zip": zipped,
    "stored.zip": lambda folder, target: zipped(folder, target, zipfile.ZIP_STORED),
    "bz2.zip": lambda folder, target: zipped(folder, target, zipfile.ZIP_BZIP2),
    "wrapped.zip": lambda folder, target: zipped(folder, target, prefix="insects_data/"),
    "plain.tar": lambda folder, target: tarred(folder, target, "w"),
    "packed.tar.gz": lambda folder, target: tarred(folder, target, "w:gz"),
    "packed.tgz": lambda folder, target: tarred(folder, target, "w:gz"),
    "packed.tar.bz2": lambda folder, target: tarred(folder, target, "w:bz2"),
    "packed.tar.xz": lambda folder, target: tarred(folder, target, "w:xz"),
}


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_is_its_folder(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "set", {"train/ant": 5, "train/bee": 5, "val/ant": 2, "val/bee": 1})
    plain, packed = opened(folder), opened(PACKERS[name](folder, tmp_path / name))
    assert packed.name == name.split(".")[0]
    assert packed.classes == plain.classes
    for one, other in ((plain.train, packed.train), (plain.val, packed.val), (plain.test, packed.test)):
        assert one.samples == other.samples
        assert [one.raw(index) for index in range(len(one))] == [other.raw(index) for index in range(len(other))]


def test_nothing_is_extracted_and_a_compressed_tar_is_decompressed_once(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", {"a": 3, "b": 3})
    path = tarred(folder, tmp_path / "set.tar.gz", "w:gz")
    stages: list[str] = []
    for _ in range(2):
        module.listing(str(path), DataOptions(), lambda stage, done, total: stages.append(stage))
    assert stages == ["decompressing the archive"]
    assert [entry.suffix for entry in (cache_dir() / "archives").iterdir()] == [".tar"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"set", "set.tar.gz"}


def test_litter_hidden_files_and_stray_paths_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/1.png", "b/2.png", "__MACOSX/a/._1.png", "a/.hidden.png", "../../evil/3.png", "/abs/a/4.png"):
            archive.writestr(name, encoded(picture(len(name))))
    listing = module.listing(str(path), DataOptions())
    assert sorted(item.id for item in listing.splits["all"]) == ["a/1.png", "abs/a/4.png", "b/2.png"]
    assert "1 member(s) with a path that leaves the archive left out" in listing.notes


def test_links_in_a_tar_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(picture(1)))
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a/1.png", "b/2.png"):
            data = encoded(picture(len(name)))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
    listing = module.listing(str(path), DataOptions())
    assert [item.id for item in listing.splits["all"]] == ["a/1.png", "b/2.png"]
    assert "1 link(s) or special file(s) of the archive left out" in listing.notes


def _broken_zip(path: Path, folder: Path) -> None:
    path.write_bytes(zipped(folder, path).read_bytes()[:-40])


def _broken_gz(path: Path, folder: Path) -> None:
    path.write_bytes(tarred(folder, path, "w:gz").read_bytes()[:-900])


def _cut_tar(path: Path, folder: Path) -> None:
    path.write_bytes(tarred(folder, path, "w").read_bytes()[:1600])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.zip", _broken_zip),
        ("x.tar.gz", _broken_gz),
        ("x.tar", _cut_tar),
        ("y.zip", lambda path, folder: path.write_bytes(b"")),
        ("y.tar", lambda path, folder: path.write_bytes(b"certainly no archive" * 100)),
        ("y.tar.xz", lambda path, folder: path.write_bytes(lzma.compress(b"no tar inside" * 1000))),
        ("y.tar.bz2", lambda path, folder: path.write_bytes(bz2.compress(bytes(5000))[:-9])),
    ],
)
def test_a_corrupt_archive_says_so(tmp_path: Path, name: str, make: Callable[[Path, Path], None]) -> None:
    folder = fill(tmp_path / "set", {"a": 3, "b": 3})
    make(tmp_path / name, folder)
    with pytest.raises(DataError) as caught:
        opened(tmp_path / name)
    assert "is not a valid archive" in caught.value.what
    assert caught.value.fix == "download or make it again"
    assert not list(cache_dir().glob("archives/*"))


def test_a_damaged_member_is_one_bad_image(tmp_path: Path) -> None:
    path = zipped(fill(tmp_path / "set", {"a": 4, "b": 4}), tmp_path / "x.zip", zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 50
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"1 of 8 image\(s\).*\n  why: a/00000.png: .*checksum does not match"):
        opened(path)
    assert len(opened(path, on_bad_image="skip").bad) == 1


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    path = zipped(fill(tmp_path / "set", {"a": 1, "b": 1}), tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1
        at += 4
    path.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        opened(path)


def test_absurd_growth_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPANSION_FREE", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(DataError, match="expands to more than 200 times its size"):
        opened(path)
    assert not list(cache_dir().glob("archives/*"))


def test_a_member_that_claims_to_be_huge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGE_LIMIT", 100)
    path = zipped(fill(tmp_path / "set", {"a": 1, "b": 1}), tmp_path / "x.zip")
    with pytest.raises(DataError, match=r"the member .*png claims"):
        opened(path)


def test_a_member_never_inflates_beyond_what_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(1 << 20))
    reader = ArchiveReader(str(path))
    member = module.ArchiveMember(0, path.stat().st_size - 100, 50, zipfile.ZIP_DEFLATED, 0)
    with pytest.raises(ValueError, match="checksum does not match"):
        reader.read(member)


def test_reading_is_safe_in_threads_and_after_pickling(tmp_path: Path) -> None:
    dataset = opened(zipped(fill(tmp_path / "set", {"a": 20, "b": 20}), tmp_path / "x.zip"))
    expected = [dataset.train.raw(index) for index in range(len(dataset.train))]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(dataset.train.raw, list(range(len(expected))) * 5)) == expected * 5
    copy = pickle.loads(pickle.dumps(dataset.train))
    assert [copy.raw(index) for index in range(len(copy))] == expected
    assert ids(copy) == ids(dataset.train)
