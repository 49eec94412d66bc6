"""Images, archives, folders and tables from strangers: each bad one is named, the others are used, nothing blows up."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.data.pictures import encoded, fill, opened, picture
from tests.faults import hostile
from tests.faults.hostile import limited, refused
from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from zoo.data.loose_images import open_images
from zoo.data.sources import archive, image_folder
from zoo.data.store.decode import UnreadableImage, decode
from zoo.data.types import DataOptions
from zoo.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file closefile\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def gif_bomb() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
        + b"\x08\x02\0\0\0;"
    )


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb of 2.5 gigapixels": (lambda: hostile.png(50_000, 50_000), "too large"),
    "a bomb of 2^62 pixels": (lambda: hostile.png(2**31 - 1, 2**31 - 1), "too large"),
    "a GIF of 65,535 x 65,535": (gif_bomb, "too large"),
    "a JPEG of 2,000 passes": (lambda: hostile.jpeg_of_passes(2000), "passes"),
    "PostScript, which Ghostscript would run": (lambda: EPS, "not an image"),
    "SVG with a script": (lambda: SVG, "not an image"),
    "HTML": (lambda: b"<html><script>alert(1)</script></html>", "not an image"),
    "a zip": (lambda: b"PK\x03\x04" + bytes(100), "not an image"),
    "a program": (lambda: b"\x7fELF" + bytes(100), "not an image"),
    "a PNG cut off": (lambda: encoded(picture(1))[:100], ""),
    "a JPEG cut off": (lambda: encoded(picture(1, 90, 90), "JPEG")[:400], "runcated"),
    "a size of 0": (lambda: hostile.png(0, 10), ""),
    "a TIFF that points at itself": (lambda: b"II*\0\x08\0\0\0" + b"\x00\x00" + b"\x08\0\0\0", ""),
    "a text chunk of 100 MB": (lambda: text_bomb(), ""),
    "zeros": (lambda: bytes(10_000), "not an image"),
    "nothing": (lambda: b"", "empty"),
}


def text_bomb() -> bytes:
    """A PNG whose compressed comment unfolds into far more than Pillow takes."""
    body = b"zTXt", b"c\0\0" + zlib.compress(bytes(100 << 20))
    chunk = struct.pack(">I", len(body[1])) + body[0] + body[1] + struct.pack(">I", zlib.crc32(body[0] + body[1]))
    data = encoded(picture(1))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("detail", BAD)
def test_a_bad_image_is_named(faults: Try, detail: str) -> None:
    make, word = BAD[detail]
    data = make()
    with faults("image", "decoding", detail) as fault, limited():
        with pytest.raises(UnreadableImage) as caught:
            decode(data)
        assert word in str(caught.value)
        fault.survived(ONE_ERROR)


GOOD: dict[str, tuple[Callable[[], bytes], tuple[int, int], str]] = {
    "1 x 1": (lambda: encoded(picture(1, 1, 1)), (1, 1), ""),
    "20,000 x 20": (lambda: encoded(picture(1, 20_000, 20)), (1280, 20), "the middle is used"),
    "20 x 20,000": (lambda: encoded(picture(1, 20, 20_000)), (20, 1280), "the middle is used"),
    "1 x 60,000": (lambda: encoded(picture(1, 1, 60_000), "PNG"), (1, 64), "the middle is used"),
    "an animated GIF": (lambda: moving("GIF"), (20, 16), "its first frame is used"),
    "an animated WebP": (lambda: moving("WEBP"), (20, 16), "its first frame is used"),
    "an animated PNG": (lambda: moving("PNG"), (20, 16), "its first frame is used"),
    "a PNG with HTML behind it": (lambda: encoded(picture(1)) + SVG, (20, 16), ""),
    "a JPEG with a zip behind it": (lambda: encoded(picture(1), "JPEG") + b"PK\x05\x06" + bytes(18), (20, 16), ""),
    "a GIF that is a script as well": (lambda: encoded(picture(1), "GIF", comment=b"*/alert(1)/*"), (20, 16), ""),
}


def moving(kind: str) -> bytes:
    frames = [picture(seed) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("detail", GOOD)
def test_an_odd_image_is_used_and_what_is_left_out_is_said(faults: Try, detail: str) -> None:
    make, size, word = GOOD[detail]
    with faults("image", "decoding", detail) as fault, limited():
        remarks: list[str] = []
        assert decode(make(), remarks.append).size == size
        assert (word in remarks[0]) if word else not remarks
        fault.survived(AS_WITHOUT)


def test_the_scan_lists_bad_images_and_says_what_it_left_out(faults: Try, tmp_path: Path) -> None:
    fill(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / "bomb.png").write_bytes(hostile.png(50_000, 50_000))
    (tmp_path / "b" / "page.jpg").write_bytes(b"<html></html>")
    with refused(faults, "image", "scan", "a bomb and a page among others", "2 of 14", "bomb.png: too large"):
        opened(tmp_path, image_size=16)
    (tmp_path / "a" / "moving.jpg").write_bytes(moving("GIF"))
    (tmp_path / "b" / "long.png").write_bytes(encoded(picture(3, 20_000, 20)))
    for _ in range(2):  # the second time from what is remembered
        dataset = opened(tmp_path, image_size=16, on_bad_image="skip")
        assert {image.path for image in dataset.bad} == {"a/bomb.png", "b/page.jpg"}
        notes = "\n".join(dataset.notes)
        assert "1 image(s) of an animation: its first frame is used (such as a/moving.jpg)" in notes
        assert "1 image(s) more than 64 times as long as wide: the middle is used (such as b/long.png)" in notes


def test_names_that_no_text_can_hold(faults: Try, tmp_path: Path) -> None:
    for number, name in enumerate([b"a\xff\xfe", b"b\x1b[31m", b"c\nnew", b"d" * 240]):
        place = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(place)
        for index in range(4):
            with open(os.path.join(place, name[:1] * 230 + b"%d\xff.png" % index), "wb") as file:
                file.write(encoded(picture(10 * number + index)))
    with faults("image", "names", "not UTF-8, escapes, line ends, 240 bytes long") as fault:
        for _ in range(2):
            dataset = opened(tmp_path, image_size=16)
            assert len(dataset.classes) == 4 and len(dataset.train) == 8
        fault.survived(AS_WITHOUT)


def test_pipes_devices_and_huge_files(faults: Try, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    names = ["pipe.png", "device.png", "huge.png", "loop.png", "no\0name.png", "x" * 5000]
    for name in names:
        with faults("image", "reading", name[:20]) as fault, limited():
            ((_, found),) = open_images([f"{tmp_path}/{name}"])
            assert isinstance(found, DataError)
            fault.survived(ONE_ERROR)
    table = pd.DataFrame({"path": [*names[:4], "/dev/zero", "a/1.png"], "label": list("ababab")})
    table.to_csv(tmp_path / "t.csv", index=False)
    with refused(faults, "table", "paths", "pipes, devices, a terabyte", "6 of 6", "than 512 MiB", "or a pipe"):
        opened(tmp_path / "t.csv")
    fill(tmp_path / "set", {"a": 3, "b": 3})
    os.mkfifo(tmp_path / "set" / "a" / "pipe.png")
    with faults("image", "folder", "a pipe among files") as fault, limited():
        assert len(opened(tmp_path / "set").train) > 0
        fault.survived(AS_WITHOUT)


def test_folders_without_end(faults: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "loop", {"a": 3, "b": 3})
    (tmp_path / "loop" / "a" / "again").symlink_to(tmp_path / "loop")
    with faults("folder", "links", "a circle") as fault, limited():
        assert len(opened(tmp_path / "loop").classes) == 2
        fault.survived(AS_WITHOUT)
    monkeypatch.setattr(image_folder, "FOLDERS_LIMIT", 3000)
    deep = tmp_path / "many"
    for level in range(30):  # 2^30 ways down
        (deep / f"{level:02d}").mkdir(parents=True)
        if level:
            for name in "xy":
                (deep / f"{level - 1:02d}" / name).symlink_to(deep / f"{level:02d}")
    with refused(faults, "folder", "links", "a billion ways to a few folders", "links are followed"):
        opened(deep / "00")
    at = tmp_path / "deep"
    for _ in range(200):
        at = at / "d"
    at.mkdir(parents=True)
    with refused(faults, "folder", "depth", "200 folders deep", "64 folders deep"):
        opened(tmp_path / "deep")


# --- archives


def member(name: str, seed: int = 1, **facts: object) -> tuple[tarfile.TarInfo, io.BytesIO]:
    data = encoded(picture(seed))
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, io.BytesIO(data if info.isreg() else b"")


def test_members_that_lead_out_of_an_archive(faults: Try, tmp_path: Path) -> None:
    names = ["a/1.png", "b/2.png", "../out/3.png", "a/../../4.png", "/etc/5.png", "C:\\w\\6.png", "a\\..\\..\\7.png"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        for number, name in enumerate(names):
            packed.writestr(name, encoded(picture(number)))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number, name in enumerate(names):
            tar.addfile(*member(name, number))
        for name, kind in (("a/s.png", tarfile.SYMTYPE), ("a/h.png", tarfile.LNKTYPE), ("a/c.png", tarfile.CHRTYPE),
                           ("a/p.png", tarfile.FIFOTYPE)):  # fmt: skip
            tar.addfile(*member(name, type=kind, linkname="/etc/passwd", size=0))
    before = {path.name for path in tmp_path.iterdir()}
    for kind in ("zip", "tar"):
        with faults("archive", "member names", f"..., absolute, links, devices in a {kind}") as fault, limited():
            listing = archive.listing(str(tmp_path / f"x.{kind}"), DataOptions())
            assert [i.id for i in listing.splits["all"]] == ["C:/w/6.png", "a/1.png", "b/2.png", "etc/5.png"]
            assert any("3 member(s) with a path that leaves the archive" in note for note in listing.notes)
            assert {path.name for path in tmp_path.iterdir()} == before and not (tmp_path.parent / "out").exists()
            fault.survived(AS_WITHOUT)
    assert any("4 link(s) or special file(s)" in note for note in listing.notes)


def test_members_of_one_name(faults: Try, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        for number, name in enumerate(["a/1.png", "a/1.png", "b/2.png"]):
            packed.writestr(name, encoded(picture(number)))
    with faults("archive", "member names", "one twice") as fault:
        listing = archive.listing(str(tmp_path / "x.zip"), DataOptions())
        assert listing.reader.read(listing.splits["all"][0].locator) == encoded(picture(1))
        assert "1 member(s) of the archive have the name of a later one, which is used instead" in listing.notes
        fault.survived(AS_WITHOUT)


def changed_directory(path: Path, offset: int, form: str, value: int) -> None:
    """Change one field of every entry of a zip's directory."""
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        struct.pack_into(form, data, at + offset, value)
        at += 4
    path.write_bytes(data)


ZIPS: dict[str, tuple[int, str, int, str]] = {
    "members of 4 GB": (24, "<I", 0xFFFFFFFE, "expands to more than"),
    "packed sizes of 4 GB": (20, "<I", 0xFFFFFFFE, "outside of the file"),
    "members beyond the end": (42, "<I", 0x7FFFFFFF, "not a valid archive"),
    "encrypted": (8, "<H", 1, "is encrypted"),
    "an unknown method": (10, "<H", 99, "compression method 99"),
    "names longer than the file": (28, "<H", 0xFFFF, "x.zip"),
}


@pytest.mark.parametrize("detail", ZIPS)
def test_a_directory_that_lies(faults: Try, tmp_path: Path, detail: str) -> None:
    offset, form, value, words = ZIPS[detail]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        for number, name in enumerate(["a/1.png", "b/2.png"]):
            packed.writestr(name, encoded(picture(number)))
    changed_directory(tmp_path / "x.zip", offset, form, value)
    with refused(faults, "archive", "zip directory", detail, "x.zip", words):
        opened(tmp_path / "x.zip")


def test_members_that_overlap_and_members_without_end(
    faults: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/0.png", bytes(20 << 20))
    data = buffer.getvalue()
    at = data.index(b"PK\x01\x02")
    entry = data[at : data.index(b"PK\x05\x06")]
    entries = b"".join(entry.replace(b"0.png", b"%d.png" % (number % 10)) for number in range(200))
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 200, 200, len(entries), at, 0)
    (tmp_path / "x.zip").write_bytes(data[:at] + entries + end)
    with refused(faults, "archive", "zip directory", "200 members in one place, 4 GB", "overlap"):
        opened(tmp_path / "x.zip")
    (tmp_path / "y.zip").write_bytes(data)
    with refused(faults, "archive", "expansion", "20 MB of zeros in a zip of 20 kB", "expands to more than 200 times"):
        monkeypatch.setattr(archive, "EXPANSION_FREE", 1 << 20)
        opened(tmp_path / "y.zip")
    monkeypatch.setattr(archive, "MEMBERS_LIMIT", 100)
    with refused(faults, "archive", "members", "more than 100 in a zip", "more than 100 members"):
        opened(tmp_path / "x.zip")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(101):
            tar.addfile(tarfile.TarInfo(f"a/{number}"))
    with refused(faults, "archive", "members", "more than 100 in a tar", "more than 100 members"):
        opened(tmp_path / "x.tar")


def tar_of(*blocks: bytes) -> bytes:
    return b"".join(block.ljust(-(-len(block) // 512) * 512, b"\0") for block in blocks) + bytes(1024)


def header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


TARS: dict[str, Callable[[], bytes]] = {
    "a header of 100 MB": lambda: tar_of(header("x", 100 << 20, tarfile.XHDTYPE), bytes(100 << 20)),
    "a name of 8 GB": lambda: tar_of(header("x", 8 << 30, tarfile.GNUTYPE_LONGNAME)),
    "headers of headers": lambda: tar_of(
        *(part for _ in range(5000) for part in (header("x", 3, tarfile.GNUTYPE_LONGNAME), b"abc"))
    ),
    "a negative size": lambda: tar_of(header("a/1.png", -512, tarfile.REGTYPE)),
    "a member beyond the end": lambda: tar_of(header("a/1.png", 1 << 30, tarfile.REGTYPE)),
    "a member of 600 GB": lambda: tar_of(header("a/1.png", 600 << 30, tarfile.REGTYPE)),
    "noise": lambda: os.urandom(512) + bytes(1024),
}


@pytest.mark.parametrize("detail", TARS)
def test_a_tar_that_lies(faults: Try, tmp_path: Path, detail: str) -> None:
    (tmp_path / "x.tar").write_bytes(TARS[detail]())
    with refused(faults, "archive", "tar headers", detail, "x.tar"):
        opened(tmp_path / "x.tar")


def test_an_archive_in_an_archive_is_no_image(faults: Try, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("a/1.png", encoded(picture(1)))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("a/inner.zip", inner.getvalue())
    with refused(faults, "archive", "members", "a zip in a zip", "there are no images in"):
        opened(tmp_path / "x.zip")


# --- tables


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


TABLES: dict[str, tuple[str, Callable[[], str | bytes], str]] = {
    "100,000 columns": ("t.csv", lambda: ",".join(f"c{n}" for n in range(100_000)) + "\n", "99,980 more"),
    "100,000 columns, JSON": (
        "t.jsonl", lambda: "{" + ",".join(f'"c{n}":1' for n in range(100_000)) + "}", "no column"),
    "other columns in each row": (
        "t.jsonl", lambda: "".join(f'{{"k{n}":{n}}}\n' for n in range(50_000)), "no column"),
    "NUL bytes": ("t.csv", lambda: "path,label\na\0b.png,x\nc.png,y\n", "cannot be read"),
    "another encoding": ("t.csv", lambda: "path,label\né.png,ä\n".encode("latin-1"), "cannot be read as csv"),
    "UTF-16": ("t.csv", lambda: "path,label\na.png,b\n".encode("utf-16"), ""),
    "a field of 50 MB": ("t.csv", lambda: f"path,label\n{'a' * 50_000_000},x\nb,y\n", "50,000,000 characters"),
    "a class name of a megabyte": ("t.csv", lambda: f"path,label\na.png,{'x' * 1_000_000}\n", "1,000,000 characters"),
    "addresses": ("t.csv", lambda: "path,label\nhttp://192.0.2.1/a.png,x\n", "fetches nothing"),
    "file addresses": ("t.csv", lambda: "path,label\nfile:///etc/passwd,x\n", "fetches nothing"),
    "nested JSON": ("t.jsonl", lambda: "[" * 100_000, "cannot be read as jsonl"),
    "JSON that is no object": ("t.jsonl", lambda: "1\n2\n", "every line must be an object"),
    "no Parquet": ("t.parquet", lambda: b"PAR1" + bytes(100) + b"PAR1", "cannot be read as parquet"),
    "Parquet of texts that are no UTF-8": ("t.parquet", lambda: undecodable(), "cannot be read as parquet"),
    "numbers that are none": ("t.csv", lambda: "path,label\na.png,²\nb.png,--5\nc.png,٣\n", "cannot be read"),
    "numbers of 5,000 digits": ("t.csv", lambda: f"path,label\na.png,{'9' * 5000}\nb.png,1\n", "cannot be read"),
    "secrets outside": ("t.csv", lambda: "path,label\n/etc/passwd,x\n../../etc/shadow,y\n", "not an image"),
    "rows longer than the header": ("t.csv", lambda: "path,label\na.png,x,y\nb.png,y,z\n", "cannot be read as csv"),
    "a wide row longer than the header": (
        "t.csv", lambda: f"path,label{',c' * 1500}\na.png,x\nb.png,y{',1' * 1501}\n", "1,503 fields, the header 1,502"),
    "one row longer than the header": ("t.csv", lambda: "path,label\na.png,x\nb,c.png,z\n", "cannot be read as csv"),
    "quotes without end": ("t.csv", lambda: 'path,label\n"a.png,x\n', "cannot be read as csv"),
}  # fmt: skip


def undecodable() -> bytes:
    table = pd.DataFrame({"path": ["abcdefgh.png"], "label": ["x"]}).to_parquet(compression=None)
    return table.replace(b"abcdefgh", b"\x80bcdefgh")


@pytest.mark.parametrize("detail", TABLES)
def test_a_table(faults: Try, tmp_path: Path, detail: str) -> None:
    name, make, words = TABLES[detail]
    write(tmp_path / name, make())
    with refused(faults, "table", "reading", detail, words):
        opened(tmp_path / name)


def test_a_table_of_many_columns_and_of_paths_outside(faults: Try, tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 4, "b": 4})
    (tmp_path / "tables").mkdir()
    columns = ",".join(f"c{n}" for n in range(20_000))
    rows = [f"../set/{path.relative_to(tmp_path / 'set')},{path.parent.name}{',' * 20_000}"
            for path in sorted((tmp_path / "set").rglob("*.png"))]  # fmt: skip
    write(tmp_path / "tables" / "t.csv", f"path,label,{columns}\n" + "\n".join([*rows, rows[0]]) + "\n")
    with faults("table", "reading", "20,000 columns, paths outside, one twice") as fault, limited():
        dataset = opened(tmp_path / "tables" / "t.csv")
        assert "9 path(s) of the table lead out of its folder; they are read there" in dataset.notes
        assert "1 path(s) appear in more than one row" in dataset.notes
        fault.survived(AS_WITHOUT)


def test_a_parquet_of_a_billion_rows(faults: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"path": ["a.png"] * 1000, "label": ["x"] * 1000}).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("zoo.data.sources.table.ROWS_LIMIT", 999)
    with refused(faults, "table", "reading", "more rows than can be", "1,000 rows; at most 999"):
        opened(tmp_path / "t.parquet")


def test_a_table_that_is_a_pipe(faults: Try, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with refused(faults, "table", "reading", "a pipe", "a device or a pipe"):
        opened(tmp_path / "t.csv")


def test_a_row_on_the_hub_names_no_file_of_this_machine(faults: Try, tmp_path: Path) -> None:
    from zoo.data.sources.hub import HubReader

    (tmp_path / "private.png").write_bytes(encoded(picture(1)))
    with faults("table", "hub rows", "a path on this machine") as fault:
        for cell in ({"bytes": None, "path": str(tmp_path / "private.png")}, {"bytes": None, "path": "/dev/zero"}):
            reader = HubReader({"train": [{"image": cell}]}, "image")
            with pytest.raises(ValueError, match="is not a file of the data set"):
                reader.read(("train", 0))
        fault.survived(ONE_ERROR)


def test_pillow_asks_no_other_program() -> None:
    """A format that is read by running something would be a way to run something."""
    Image.init()
    assert "EPS" in Image.OPEN, "the test means something"
    from zoo.data.store.decode import FORMATS

    assert not {"EPS", "WMF", "HDF5", "GRIB", "BUFR", "FPX", "MIC"} & set(FORMATS)
