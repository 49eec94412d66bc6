"""Archive source: images in zip and tar files, read in place.

Nothing is extracted, so no member can land anywhere. Members of a zip or tar are read by offset. A compressed tar does
not allow that: it is decompressed once into the cache, as a plain tar.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from zoo.base import cache
from zoo.base.files import cache_dir, replacing
from zoo.base.untrusted import zip_members
from zoo.data.sources.class_folders import Files, arrange, is_hidden
from zoo.data.types import IMAGE_LIMIT, MEMBERS_LIMIT, DataOptions, GiB, Listing, Progress
from zoo.errors import DataError

HEADER_LIMIT = 1 << 20  # bytes of a tar member's header
EXPANSION_LIMIT = 200  # archives of images grow by a few per cent; one that grows more than this is a trap
COPIES_LIMIT = 32 * GiB  # of all decompressed tars in the cache
EXPANSION_FREE = 1 * GiB  # growth below this is never refused

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class ArchiveMember(NamedTuple):
    """Place of one image in an archive."""

    offset: int  # of the local header in a zip, of the data in a tar
    packed: int  # bytes in the file
    size: int  # bytes of the image
    method: int  # zip's compression method; 0 for a tar
    crc: int | None  # None for a tar


class ArchiveReader:
    """Reads members by offset, with `os.pread`: it has no position that threads and forks would share."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def read(self, locator: ArchiveMember) -> bytes:
        """The decompressed bytes of one member. Raises ValueError if its checksum does not match."""
        member = ArchiveMember(*locator)
        if member.crc is None:
            return self._at(member.offset, member.packed)
        signature, name, extra = _LOCAL_HEADER.unpack(self._at(member.offset, _LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError("the archive is damaged here: no member begins where one should")
        data = self._at(member.offset + _LOCAL_HEADER.size + name + extra, member.packed)
        if member.method == zipfile.ZIP_DEFLATED:
            data = _inflate(data, member.size)
        elif member.method == zipfile.ZIP_BZIP2:
            data = bz2.BZ2Decompressor().decompress(data, max_length=member.size)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise ValueError("the archive is damaged here: the checksum does not match")
        return data

    def _at(self, offset: int, count: int) -> bytes:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        data = os.pread(self._file, count, offset)
        if len(data) != count:
            raise ValueError("the archive ends too early")
        return data

    def __getstate__(self) -> dict[str, str]:
        """Only the path is sent to another process."""
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        """The file is opened again at the first read."""
        self.path, self._file = state["path"], None

    def __del__(self) -> None:
        """Close the file."""
        if getattr(self, "_file", None) is not None:
            with contextlib.suppress(OSError, TypeError):
                os.close(self._file)  # type: ignore[arg-type]


class _Bounded(io.FileIO):
    """A tar's file that limits each read: `tarfile` reads a header whole, however long it claims to be."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises tarfile.ReadError for more than a header can need."""
        if size is None or size < 0 or size > HEADER_LIMIT:
            raise tarfile.ReadError("a header of it is larger than 1 MiB")
        return super().read(size)


def is_archive(path: Path) -> bool:
    """Whether a file has an archive's extension."""
    return path.name.lower().endswith(_SUFFIXES)


FORM = "a zip or tar archive of a folder"


def claims(ref: str) -> bool:
    """Whether it is a path with an archive's extension."""
    return is_archive(Path(ref).expanduser()) and Path(ref).expanduser().exists()


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List the images of a zip, tar, or compressed tar of a folder, without links, hidden files and `__MACOSX`.

    Raises DataError if the archive is damaged, encrypted, a trap, or has no images in class folders.
    """
    path = Path(ref).expanduser()
    before = path.stat()
    try:
        with open(path, "rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"cannot read {path}", why=error.strerror or str(error)) from error
    notes: list[str] = []
    place = path
    if start[:2] == b"PK":
        files, folders = _zip_members(path, notes)
    else:
        place = _plain_tar(path, start, on_progress)
        try:
            files, folders = _tar_members(place, path, notes)
        except DataError:
            if place != path:
                place.unlink(missing_ok=True)
            raise
    ending = max((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), key=len, default="")
    return arrange(
        files,
        folders,
        str(path),
        labels=options.labels,
        notes=notes,
        name=path.name[: len(path.name) - len(ending)] or "images",
        key=f"archive:{path.resolve()}:{before.st_size}:{before.st_mtime_ns}",
        reader=ArchiveReader(str(place.resolve())),
    )


def _zip_members(path: Path, notes: list[str]) -> tuple[Files, list[str]]:
    files: Files = {}
    folders: list[str] = []
    try:
        infos = zip_members(path, MEMBERS_LIMIT)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise _corrupt(path, str(error)) from error
    _check_growth(path, sum(info.file_size for info in infos), path.stat().st_size)
    outside = twice = 0
    for info in infos:
        name = _clean(info.filename)
        if name is None:
            outside += 1
        elif not name or is_hidden(name):
            continue
        elif info.is_dir():
            folders.append(name)
        elif not stat.S_ISLNK(info.external_attr >> 16):
            if info.flag_bits & 0x1:
                raise DataError(
                    f"{path} is encrypted", why=f"{name} needs a password", fix="make an archive without one"
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
                raise DataError(
                    f"{path} uses compression method {info.compress_type}, which cannot be read in place",
                    fix="make the zip again with the usual method (deflate)",
                )
            _check_size(path, name, info.file_size)
            twice += name in files
            member = ArchiveMember(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
            files[name] = (member, info.file_size, info.CRC)
    _remark(notes, outside=outside, twice=twice)
    return files, folders


def _tar_members(place: Path, path: Path, notes: list[str]) -> tuple[Files, list[str]]:
    files: Files = {}
    folders: list[str] = []
    outside = links = twice = 0
    length = place.stat().st_size
    with place.open("rb") as file:
        file.seek(max(0, length - tarfile.BLOCKSIZE))
        if file.read().strip(b"\0") or not length:
            # A tar cut off between two members looks complete, but images are missing.
            raise _corrupt(path, "it has no end mark")
    try:
        with _Bounded(place) as bounded, tarfile.open(fileobj=bounded, mode="r:") as archive:
            for number, info in enumerate(archive):
                if number >= MEMBERS_LIMIT:
                    raise _corrupt(path, f"it has more than {MEMBERS_LIMIT:,} members")
                if info.size < 0:
                    raise _corrupt(path, "a member has a negative size")
                archive.members.clear()  # type: ignore[attr-defined]  # which would grow with each
                name = _clean(info.name)
                if name is None:
                    outside += 1
                elif not name or is_hidden(name):
                    continue
                elif info.isdir():
                    folders.append(name)
                elif not info.isreg() or info.issparse():
                    links += 1
                else:
                    if info.offset_data + info.size > length:
                        raise _corrupt(path, f"it ends inside of {name}")
                    _check_size(path, name, info.size)
                    twice += name in files
                    member = ArchiveMember(info.offset_data, info.size, info.size, 0, None)
                    files[name] = (member, info.size, int(info.mtime))
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise _corrupt(path, str(error)) from error
    except RecursionError:  # `tarfile` reads a header that belongs to another by recursion
        raise _corrupt(path, "its headers are nested without end") from None
    _remark(notes, outside=outside, twice=twice)
    if links:
        notes.append(f"{links} link(s) or special file(s) of the archive left out")
    return files, folders


def _plain_tar(path: Path, start: bytes, on_progress: Progress | None) -> Path:
    """The archive itself if it is a plain tar, else its decompressed copy in the cache."""
    opened = _opener(path, start)
    if opened is None:
        return path
    status = path.stat()
    identity = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}".encode("utf-8", "surrogatepass")
    target = cache_dir() / "archives" / f"{hashlib.sha256(identity).hexdigest()[:32]}.tar"
    if target.exists():
        os.utime(target)
        return target
    with replacing(target) as temporary, opened as source, temporary.open("wb") as sink:
        written = 0
        for block in _blocks(path, source):
            written += len(block)
            _check_growth(path, written, status.st_size)
            if shutil.disk_usage(target.parent).free < GiB:
                raise DataError(
                    f"too little disk space to decompress {path}",
                    why=f"less than 1 GiB is free in {target.parent}",
                    fix="free some space, or set ZOO_CACHE to a folder on another disk",
                )
            sink.write(block)
            if on_progress is not None:
                on_progress("decompressing the archive", written, 0)
    cache.trim(target.parent, ".tar", COPIES_LIMIT, keep=[target])
    return target


def _opener(path: Path, start: bytes) -> IO[bytes] | None:
    if start[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if start[:3] == b"BZh":
        return bz2.open(path, "rb")
    if start[:6] == b"\xfd7zXZ\x00":
        return lzma.open(path, "rb")
    return None


def _blocks(path: Path, source: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            block = source.read(8 << 20)
        except (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise _corrupt(path, str(error)) from error
        if not block:
            return
        yield block


def _inflate(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(data, size) if size else b""
    except zlib.error as error:
        raise ValueError(f"the archive is damaged here: {error}") from None


def _clean(name: str) -> str | None:
    """A member's name as a relative path; None if it points outside the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def _check_growth(path: Path, written: int, length: int) -> None:
    if written > max(EXPANSION_FREE, length * EXPANSION_LIMIT):
        raise DataError(
            f"{path} expands to more than {EXPANSION_LIMIT} times its size",
            why="archives of images do not; this one may be a trap that fills the disk or takes for ever",
            fix="unpack it yourself if you trust it, and give the folder",
        )


def _remark(notes: list[str], *, outside: int, twice: int) -> None:
    if outside:
        notes.append(f"{outside} member(s) with a path that leaves the archive left out")
    if twice:
        notes.append(f"{twice} member(s) of the archive have the name of a later one, which is used instead")


def _check_size(path: Path, name: str, size: int) -> None:
    if size > IMAGE_LIMIT:
        raise DataError(
            f"{path}: the member {name} claims {size / GiB:.1f} GiB",
            why="no image is so large; this archive may be a trap that fills the memory",
            fix="remove the member from the archive",
        )


def _corrupt(path: Path, why: str) -> DataError:
    return DataError(f"{path} is not a valid archive", why=why, fix="download or make it again")
