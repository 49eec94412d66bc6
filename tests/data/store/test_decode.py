from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encoded, picture
from zoo.data.store import decode as module
from zoo.data.store.decode import UnreadableImage, decode


def flat(mode: str, value: object, format: str = "PNG", **options: object) -> np.ndarray:
    return np.asarray(decode(encoded(Image.new(mode, (4, 3), value), format, **options)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # what was painted under full transparency is not seen
        ("RGBA", (0, 0, 0, 127), (128, 128, 128)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
def test_modes_look_as_in_a_viewer(mode: str, value: object, expected: tuple[int, int, int]) -> None:
    pixels = flat(mode, value)
    assert pixels.shape == (3, 4, 3)
    assert (pixels == expected).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode(encoded(Image.fromarray(values))))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_dark_sixteen_bit_image_stays_dark() -> None:
    values = np.full((2, 2), 300, dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(values)))).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [([[0.0, 0.5, 1.0]], [0, 128, 255]), ([[0.0, 100.0, 200.0]], [0, 100, 200]), ([[-1.0, 0.0, 1.0]], [0, 128, 255])],
)
def test_float_tiffs_show_their_range(values: list[list[float]], expected: list[int]) -> None:
    image = Image.fromarray(np.array(values, dtype=np.float32))
    assert np.asarray(decode(encoded(image, "TIFF")))[0, :, 0].tolist() == expected


def test_palette_and_its_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 200, 10] + [0] * 762)
    image.putpixel((1, 0), 1)
    assert np.asarray(decode(encoded(image)))[0].tolist() == [[200, 10, 10], [10, 200, 10]]
    assert np.asarray(decode(encoded(image, transparency=1)))[0].tolist() == [[200, 10, 10], [255, 255, 255]]


def test_transparent_colour_of_an_rgb_png_is_white() -> None:
    data = encoded(Image.new("RGB", (2, 2), (9, 9, 9)), transparency=(9, 9, 9))
    assert (np.asarray(decode(data)) == 255).all()


def test_cmyk_jpeg() -> None:
    pixels = flat("CMYK", (0, 255, 255, 0), "JPEG", quality=95)
    assert pixels[..., 0].min() > 200
    assert pixels[..., 1:].max() < 60


def test_exif_rotation_is_applied_once() -> None:
    image = picture(1, width=8, height=4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned = decode(encoded(image, exif=exif))
    assert turned.size == (4, 8)
    assert (np.asarray(turned) == np.asarray(image.transpose(Image.Transpose.ROTATE_270))).all()


def test_broken_exif_does_not_make_an_image_unreadable() -> None:
    with module.no_warnings():
        assert decode(encoded(picture(1), "JPEG", exif=b"Exif\x00\x00MM\x00*garbage")).size == (20, 16)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data))[0, 0].tolist() == [255, 0, 0]


def test_format_is_told_by_content_not_by_name() -> None:
    assert decode(encoded(picture(3), "WEBP", lossless=True)).size == (20, 16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"no image at all", "not an image"),
        (encoded(picture(2, 64, 64), "JPEG")[:700], "truncated"),
        (encoded(picture(2))[:200], "truncated"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableImage, match=message):
        decode(data)


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="too large"):
        decode(encoded(picture(2, 20, 20)))


def test_odd_files_raise_no_warnings(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(module.Image, "MAX_IMAGE_PIXELS", 100)
    with module.no_warnings():
        assert decode(encoded(picture(2, 12, 12))).size == (12, 12)  # between Pillow's warning and its refusal
    assert not recwarn.list
