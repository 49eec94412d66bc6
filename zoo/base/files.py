"""Files: atomic writes, free names, OS errors as messages, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from zoo.errors import DiskError


def cache_dir() -> Path:
    """The folder of everything that zoo can make again: `ZOO_CACHE`, or `zoo` under the user's cache folder."""
    if explicit := os.environ.get("ZOO_CACHE"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zoo"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see the old content or the new, never a part. Raises DiskError as `replacing`."""
    with replacing(path) as temporary:
        # A name that is not UTF-8 holds lone surrogates, which a text file cannot hold.
        temporary.write_bytes(data.encode("utf-8", "replace") if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; when the block succeeds, it is synced and renamed to `path`.

    Raises DiskError if the disk is full or the folder cannot be written to.
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
    """Turn an OSError of the block into a DiskError with a fix."""
    try:
        yield
    except OSError as error:
        # A failed download inside the block is an OSError too, but no fault of the disk.
        if error.errno is None or error.errno < 0 or isinstance(error, ConnectionError | TimeoutError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"the disk is full: {path} was not written" if full else f"cannot write {path}"
        fix = f"{'free some space, or ' if full else ''}choose another place with --out or ZOO_CACHE"
        raise DiskError(what, why=error.strerror or str(error), fix=fix, full=full) from error


def free_path(root: Path, name: str) -> Path:
    """A folder under `root` that does not exist yet: `name`, else `name-2`, `name-3`, …."""
    plain = slug(name)
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    return next(root / candidate for candidate in names if not (root / candidate).exists())


def slug(name: str) -> str:
    """The name in characters that every file system allows: letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
