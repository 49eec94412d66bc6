"""Decode encoded bytes to an upright RGB image, as viewers show it, in its own size or resized to be stored."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import functional

Pixels = npt.NDArray[np.uint8]

VERSION = 2
"""Increased when the pixels that `decode` gives change, so that decoded stores are made again."""

# Pillow's formats that need no other program; for EPS it would run Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "TGA", "AVIF")
PIXELS = 178_956_970  # most of one image: Pillow's own limit
TOGETHER = 200_000_000  # most pixels that threads decode at the same time
SCANS = 5_000_000_000  # most pixels times passes of a JPEG: a pass of few bytes costs as much as the first
LONGEST = 64  # an image more than this many times as long as wide is cut to its middle
LONGEST_STORED = 16  # and one more than this many times keeps its size: it is not stored, but read from its source


class UnreadableImage(ValueError):
    """The bytes are not a complete image; the message says why."""


def decode(
    data: bytes, remark: Callable[[str], None] | None = None, *, side: int | None = None, interpolation: str = "bicubic"
) -> Image.Image:
    """Decode one image to RGB: first frame, upright by EXIF, transparency on white, 16 bits scaled to 8, cut if long.

    `side`: resized to this short side, unless too long. The format is read from the content. `remark` is called with
    what of the file is not in the result. Raises UnreadableImage if the bytes are no image, damaged, or so large that
    they may be a decompression bomb.
    """
    image = _in_own_size(data, remark)
    return image if side is None or too_long(image) else resized(image, side, interpolation)


def resized(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """Resize an RGB image so that its short side is `side` pixels, as timm's evaluation transform does."""
    result: Image.Image = functional.resize(image, side, interpolation=str_to_interp_mode(interpolation))
    return result


def too_long(image: Image.Image) -> bool:
    """Whether an image is too long to be stored: resized by its short side, it could fill the memory."""
    return max(image.size) > LONGEST_STORED * min(image.size)


def decoding() -> tuple[object, ...]:
    """Versions of what decodes and resizes: the same versions give the same pixels."""
    return VERSION, PIL.__version__


def _in_own_size(data: bytes, remark: Callable[[str], None] | None) -> Image.Image:
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, data)
        if remark is not None and image.format != "TIFF" and getattr(image, "is_animated", False):
            remark("of an animation: its first frame is used")
        with _budget.spent(image.width * image.height):
            image.load()
            _turn_upright(image)
            return as_rgb(_middle(image, remark))
    except UnidentifiedImageError:
        raise UnreadableImage("not an image in any known format") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too large: {error}") from None
    except MemoryError:
        raise UnreadableImage("too large for the memory") from None
    except UnreadableImage:
        raise
    # Pillow's decoders raise nearly anything on damaged data.
    except Exception as error:
        raise UnreadableImage(str(error) or type(error).__name__) from None


def upright(image: Image.Image) -> Image.Image:
    """What `decode` makes of the file of an image that is already open; a copy."""
    image = image.copy()
    _turn_upright(image)
    return as_rgb(_middle(image, None))


class _PixelBudget:
    """Lets threads decode at the same time as long as their images are not too large together."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all spending: a forked process has none of the threads."""
        self._free = TOGETHER
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def spent(self, pixels: int) -> Iterator[None]:
        """Wait until `pixels` are free. An image larger than the whole budget waits to be alone."""
        pixels = min(pixels, TOGETHER)
        changed = self._changed
        with changed:
            changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with changed:
                self._free += pixels
                changed.notify_all()


_budget = _PixelBudget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_budget.reset)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd files. Enter it in the main thread: warning filters are the process's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB, as a viewer shows it."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _check_size(image: Image.Image, data: bytes) -> None:
    """Refuse an image that takes too much memory or time, before it is decoded."""
    pixels = image.width * image.height
    if pixels > PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise UnreadableImage(f"too large: {size}, of at most {PIXELS:,}; it may be a decompression bomb")
    if image.format in ("JPEG", "MPO"):
        passes = data.count(b"\xff\xda")
        if passes * pixels > SCANS:
            raise UnreadableImage(f"it is stored in {passes:,} passes; it may be made to take for ever")


def _middle(image: Image.Image, remark: Callable[[str], None] | None) -> Image.Image:
    """The middle of a long image: resized by its short side, 1 x 1000 pixels would become gigabytes."""
    width, height = image.size
    longest = LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    if remark is not None:
        remark(f"more than {LONGEST} times as long as wide: the middle is used")
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))


def _turn_upright(image: Image.Image) -> None:
    # A broken EXIF block does not say which way is up.
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError, SyntaxError, struct.error, OSError):
        ImageOps.exif_transpose(image, in_place=True)


def _to_bytes(image: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Scale grey values to 0..255: 16-bit by their full range, others by their own."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
