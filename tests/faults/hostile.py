"""What hostile input has in common: limits on time and memory, and how a refusal looks."""

from __future__ import annotations

import io
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.faults.record import ONE_ERROR, Try
from zoo.errors import ZooError

SECONDS = 20  # of processor time that anything here may take: a busy machine is not a hang
WAITING = 300  # seconds until something that waits counts as waiting for ever
MEMORY = 2 << 30  # bytes of address space that anything here may take beyond what the process has


class TooLong(BaseException):
    """Not an Exception: nobody is to catch it on the way."""


@contextmanager
def limited(seconds: int = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Fail, rather than hang or fill the machine, where something takes too long or too much."""

    def late(*_: object) -> None:
        raise TooLong(f"more than {seconds} s of processor time, or {WAITING} s in all")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(WAITING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def refused(faults: Try, kind: str, operation: str, detail: str, *words: str) -> Iterator[None]:
    """The block must end with one ZooError whose text has all the words, in time and in little memory."""
    with faults(kind, operation, detail) as fault:
        with limited(), pytest.raises(ZooError) as caught:
            yield
        text = str(caught.value)
        assert "Traceback" not in text and "bug in zoo" not in text
        assert len(text) < 4000, "a message is read by a person"
        for word in words:
            assert word in text, f"{word!r} is not in: {text}"
        fault.survived(ONE_ERROR)


def zoo(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "zoo", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        check=False,
    )


def png(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size, with no pixels to speak of."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def jpeg_of_passes(passes: int) -> bytes:
    """A progressive JPEG whose last pass is repeated, a few bytes each time."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * passes + data[-2:]
