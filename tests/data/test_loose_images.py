from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.data.pictures import encoded, fill, picture
from zoo.data import open_images
from zoo.errors import DataError


def test_files_and_folders_in_the_order_given(tmp_path: Path) -> None:
    fill(tmp_path / "box", {"b": 1, "a": 2, ".git": 1})
    (tmp_path / "box" / "notes.txt").write_text("no image")
    (tmp_path / "wrong.txt").write_bytes(encoded(picture(9), "JPEG"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    given = [tmp_path / name for name in ("wrong.txt", "box", "bad.png", "gone.png", "empty")]
    found = list(open_images([given[0], str(given[1]), *given[2:]]))
    assert [Path(path).relative_to(tmp_path).as_posix() for path, _ in found] == [
        "wrong.txt",
        "box/a/00001.png",
        "box/a/00002.png",
        "box/b/00000.png",
        "bad.png",
        "gone.png",
    ]
    assert all(isinstance(result, Image.Image) and result.mode == "RGB" for _, result in found[:4])
    for (_, result), why in zip(found[4:], ("not an image in any known format", "no such file"), strict=True):
        assert isinstance(result, DataError)
        assert why in result.why
