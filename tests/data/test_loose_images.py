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


def test_an_image_in_memory_is_seen_as_its_file_is(tmp_path: Path) -> None:
    image = Image.new("RGBA", (6, 4), (200, 30, 30, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    opened = Image.open(tmp_path / "turned.png")
    found = [
        result for _, result in open_images([tmp_path / "turned.png", opened, (tmp_path / "turned.png").read_bytes()])
    ]
    assert [result.size for result in found if isinstance(result, Image.Image)] == [(4, 6)] * 3
    assert len({result.tobytes() for result in found if isinstance(result, Image.Image)}) == 1
    assert opened.size == (6, 4) and opened.mode == "RGBA", "it is its owner's"
