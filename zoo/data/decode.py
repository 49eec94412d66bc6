"""Encoded bytes to an RGB image that looks as it does in a picture viewer."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 1
"""Raised when the pixels that `decode` makes change, so that decoded stores are made anew."""


class UnreadableImage(ValueError):
    """The bytes are not an image that can be shown whole; the message says why."""


def decode(data: bytes) -> Image.Image:
    """Decode one image completely.

    The first frame of an animation; turned as its EXIF orientation says; transparency laid on white; 16-bit values
    scaled to 8 bits rather than clipped; grey, palette, CMYK and one-bit images as RGB.

    Args:
        data: The encoded file. Its format is told by its content, never by its name.

    Raises:
        UnreadableImage: It is no image, is cut short or damaged, or is so large that it may be a decompression bomb.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        _turn_upright(image)
        return as_rgb(image)
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
