"""Encoded bytes to an RGB image that looks as it does in a picture viewer."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 2
"""Raised when the pixels that `decode` makes change, so that decoded stores are made anew."""

# Of the formats that Pillow knows, those that hold pictures and need no other program: for EPS it runs Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "TGA", "AVIF")
PIXELS = 178_956_970  # of one image, at most: Pillow's own limit
TOGETHER = 200_000_000  # pixels of the images that threads decode at one time
SCANS = 5_000_000_000  # pixels times passes of a JPEG: each pass costs as much as the first and may take a few bytes
LONGEST = 64  # an image longer than so many times its short side is cut to its middle


class UnreadableImage(ValueError):
    """The bytes are not an image that can be shown whole; the message says why."""


def decode(data: bytes, remark: Callable[[str], None] | None = None) -> Image.Image:
    """Decode one image completely.

    The first frame of an animation; turned as its EXIF orientation says; transparency laid on white; 16-bit values
    scaled to 8 bits rather than clipped; grey, palette, CMYK and one-bit images as RGB. Of an image more than 64 times
    as long as wide, its middle.

    Args:
        data: The encoded file. Its format is told by its content, never by its name.
        remark: Told what of the file is not in the result.

    Raises:
        UnreadableImage: It is no image, is cut short or damaged, or is so large that it may be a decompression bomb.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, data)
        if remark is not None and image.format != "TIFF" and getattr(image, "is_animated", False):
            remark("of an animation: its first frame is used")
        with _room.taken(image.width * image.height):
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
    """The same of an image that somebody has opened already, which stays as it is: what `decode` makes of its file."""
    image = image.copy()
    _turn_upright(image)
    return as_rgb(_middle(image, None))


class _Room:
    """Lets threads decode at the same time while their images are not too large together."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget who is inside: a forked process has none of the threads."""
        self._free = TOGETHER
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for room. An image that is larger than all of it waits to be alone."""
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


_room = _Room()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_room.reset)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Keep Pillow from warning about odd files: what cannot be shown is refused, the rest is of no concern.

    Enter it in the main thread, around whatever threads decode: Python's warning filters are the process's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB, as a person would see it."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _check_size(image: Image.Image, data: bytes) -> None:
    """Refuse what takes too much memory or time, before a pixel of it is decoded."""
    pixels = image.width * image.height
    if pixels > PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise UnreadableImage(f"too large: {size}, of at most {PIXELS:,}; it may be a decompression bomb")
    if image.format in ("JPEG", "MPO"):
        passes = data.count(b"\xff\xda")
        if passes * pixels > SCANS:
            raise UnreadableImage(f"it is stored in {passes:,} passes; it may be made to take for ever")


def _middle(image: Image.Image, remark: Callable[[str], None] | None) -> Image.Image:
    """An image of a shape that can be resized to a network's input: one pixel in a thousand would become gigabytes."""
    width, height = image.size
    longest = LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    if remark is not None:
        remark(f"more than {LONGEST} times as long as wide: the middle is used")
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))


def _turn_upright(image: Image.Image) -> None:
    # A broken EXIF block says nothing about which way is up.
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError, SyntaxError, struct.error, OSError):
        ImageOps.exif_transpose(image, in_place=True)


def _to_bytes(image: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Scale wide grey values to 0..255: 16-bit by their full range, others by the range that they show."""
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
