"""Files: written whole or not at all, free names, refusals of the operating system as messages, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import DiskError


def cache_dir() -> Path:
    """Where zoo keeps what it can make again: `ZOO_CACHE`, or `zoo` under the user's cache folder."""
    explicit = os.environ.get("ZOO_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "zoo"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        DiskError: The disk is full or the folder cannot be written to.
    """
    with replacing(path) as temporary:
        # A name that is not UTF-8 holds lone surrogates, which no text file can.
        temporary.write_bytes(data.encode("utf-8", "replace") if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds it is synced and renamed over `path`.

    Raises:
        DiskError: The disk is full or the folder cannot be written to.
    """
    with friendly_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp: its files are for the owner alone, and giving them the umask's mode is not thread-safe.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def friendly_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into messages with a fix."""
    try:
        yield
    except OSError as error:
        # A download inside the block fails with an OSError too; that is no fault of the disk.
        if error.errno is None or error.errno < 0 or isinstance(error, ConnectionError | TimeoutError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"the disk is full: {path} was not written",
                why=error.strerror or str(error),
                fix="free some space, or choose another place with --out or ZOO_CACHE",
                full=True,
            ) from error
        raise DiskError(
            f"cannot write {path}", why=error.strerror or str(error), fix="choose another place with --out or ZOO_CACHE"
        ) from error


def free_path(root: Path, name: str) -> Path:
    """A folder under `root` that does not exist yet: `name`, else `name-2`, `name-3`, …."""
    plain = slug(name)
    candidate, number = root / plain, 1
    while candidate.exists():
        number += 1
        candidate = root / f"{plain}-{number}"
    return candidate


def slug(name: str) -> str:
    """A name that any file system takes: letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
