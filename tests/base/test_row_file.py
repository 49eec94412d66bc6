"""Row files: the same bytes as ever, and nothing half-written or hostile is taken for whole."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path

import pytest

from zoo.base.cache import ACTIVATION_ROWS, IMAGE_ROWS
from zoo.base.row_file import RowFormat, RowWriter, open_or_remove

DESCRIBED, COUNTED = pytest.param(ACTIVATION_ROWS, id="described"), pytest.param(IMAGE_ROWS, id="counted")


def written(form: RowFormat, path: Path) -> bytes:
    with contextlib.closing(RowWriter(form, path.parent, b"what" if form is ACTIVATION_ROWS else b"")) as writer:
        writer.append(b"one")
        writer.append(b"two")
        writer.finish(path, b"index", 2, sync=False)
    return path.read_bytes()


def read(form: RowFormat, path: Path) -> bytes:
    with path.open("rb") as file:
        return form.index(file, form.header(file))


def test_the_bytes_of_a_cache_are_those_of_earlier_versions(tmp_path: Path) -> None:
    found = written(ACTIVATION_ROWS, tmp_path / "a")
    digest = hashlib.sha256(b"whatindex").digest()
    assert found == struct.pack("<8sQQ32s", b"ZOOACTS1", 4, 56 + 4 + 6, digest) + b"whatonetwoindex"
    found = written(IMAGE_ROWS, tmp_path / "b")
    header = struct.pack("<8sQQQ32s", b"ZOOSTOR2", 2, 64 + 6, 64 + 11, hashlib.sha256(b"index").digest())
    assert found == header + b"onetwoindex"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "no temporary file stays"


@pytest.mark.parametrize("form", [DESCRIBED, COUNTED])
def test_no_header_of_another_file_is_believed(tmp_path: Path, form: RowFormat) -> None:
    whole = written(form, tmp_path / "a")
    assert read(form, tmp_path / "a") == b"index"
    wrong = [whole[:20], b"ZOOACTS9" + whole[8:], whole[:8] + b"\xff" * 8 + whole[16:],
             whole[:16] + b"\xff" * 8 + whole[24:], whole[:-1], whole[:-1] + b"!"]  # fmt: skip
    for number, data in enumerate(wrong):
        (tmp_path / "b").write_bytes(data)
        if form is IMAGE_ROWS and number == 2:  # how many rows there are, the reader of the index compares
            continue
        assert open_or_remove(tmp_path / "b", lambda path: read(form, path)) is None
        assert not (tmp_path / "b").exists(), number
    assert open_or_remove(tmp_path / "b", lambda path: read(form, path)) is None, "there is none"


def test_a_writer_that_is_closed_early_leaves_nothing(tmp_path: Path) -> None:
    writer = RowWriter(IMAGE_ROWS, tmp_path)
    writer.append(b"one")
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".tmp"
    writer.close()
    assert not list(tmp_path.iterdir())
