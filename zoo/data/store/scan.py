"""Scan: read every image once, before training.

It finds unreadable and equal images and fills the decoded store. An SQLite file remembers the findings by place, id,
size and modification time, so that a second run reads only images that have changed. It and the store are written
during the scan, so a killed run leaves its work to the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from zoo.base.files import cache_dir
from zoo.data.store.decode import VERSION, Pixels, UnreadableImage, decode, no_warnings, too_long
from zoo.data.store.store import Builder, Store
from zoo.data.types import DataOptions, Item, Listing, Progress, cores

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 8  # images a thread takes at a time
REMEMBERED = 5.0  # seconds between writes of the findings
FILE_LIMIT = 512 << 20  # bytes of the SQLite file above which it is started from scratch


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of reading one image."""

    content: bytes  # sha256 of its bytes; empty if they could not be read
    decoded: bool  # whether it was also decoded
    error: str = ""  # why it is unreadable; empty if it is fine
    lasting: bool = True  # whether this holds until the image changes; an error of the disk does not
    remark: str = ""  # what of the file is not in the image


class Scanner:
    """Reads images of one listing in threads, remembers the findings, and fills the decoded store."""

    def __init__(self, listing: Listing, options: DataOptions, on_progress: Progress | None) -> None:
        self._listing = listing
        self._options = options
        self._on_progress = on_progress
        self._found: dict[str, Finding] = {}
        self._memory = _Memory(listing.key)
        self.store: Store | None = None  # filled by `check`
        if options.image_size is not None and options.store_bytes > 0:
            self.store = Store(options.image_size, options.interpolation)
        self._images = self._missing = 0  # checked images; those that the store does not have
        self._why = ""

    @property
    def notes(self) -> list[str]:
        """What a user should know about the store."""
        if not self._missing:
            return []
        count = f"{self._missing} images are not in the decoded store"
        what = "no decoded store" if self._missing == self._images else count
        return [f"{what}: {self._why or 'it cannot be read back'}; such images are decoded in every epoch"]

    def finding(self, item: Item) -> Finding:
        """The finding of an item that was scanned."""
        return self._found[item.id]

    def remarks(self) -> list[str]:
        """What a user should know about the images: each remark with its number of images and an example."""
        names: dict[str, list[str]] = {}
        for name, finding in self._found.items():
            if finding.remark and not finding.error:
                names.setdefault(finding.remark, []).append(name)
        return [f"{len(those)} image(s) {remark} (such as {those[0]})" for remark, those in sorted(names.items())]

    def hash(self, items: Sequence[Item]) -> None:
        """Find the content hashes of items without decoding them."""
        self._recall(items)
        unknown = [item for item in items if item.id not in self._found]
        self._read(unknown, "reading the images", decoding=False)

    def check(self, items: Sequence[Item]) -> None:
        """Decode every item that was not decoded before, or is missing from the store if there is one."""
        self._recall(items)
        unknown = [item for item in items if not self._known(item)]
        store = self.store
        if store is None:
            self._read(unknown, "checking the images")
            return
        store.find({self._found[item.id].content for item in items if item.id in self._found})
        builder = Builder(store, self._options.store_bytes)
        try:
            if not builder.given_up:
                unknown = [item for item in items if not self._known(item) or self._is_missing(item, store)]
            self._read(unknown, "checking and decoding the images", builder=builder)
        finally:
            builder.close()  # an interrupted run leaves its work to the next one
        self._images += len(items)
        self._missing += sum(self._is_missing(item, store) for item in items)
        self._why = builder.given_up or self._why

    def _known(self, item: Item) -> bool:
        finding = self._found.get(item.id)
        return finding is not None and (finding.decoded or bool(finding.error))

    def _is_missing(self, item: Item, store: Store) -> bool:
        finding = self._found[item.id]
        return not finding.error and store.row(finding.content) < 0

    def _recall(self, items: Sequence[Item]) -> None:
        for item, finding in self._memory.recall(items):
            self._found.setdefault(item.id, finding)

    def _read(
        self, items: Sequence[Item], stage: str, *, decoding: bool = True, builder: Builder | None = None
    ) -> None:
        reader, interpolation = self._listing.reader, self._options.interpolation

        def work(chunk: Sequence[Item]) -> list[tuple[Item, Finding, Pixels | None]]:
            side = self._options.image_size if builder is not None and not builder.given_up else None
            return [(item, *_examine(reader.read, item, decoding, side, interpolation)) for item in chunk]

        chunks = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
        fresh: list[tuple[Item, Finding]] = []
        written = time.monotonic()
        done, reported = 0, -1
        try:
            with no_warnings():
                for rows in in_threads(work, chunks, "zoo-scan", threads=cores(), ahead=2 * cores()):
                    for item, finding, pixels in rows:
                        self._found[item.id] = finding
                        if finding.lasting:
                            fresh.append((item, finding))
                        if builder is not None and finding.decoded and not finding.error:
                            builder.add(finding.content, pixels)
                    if time.monotonic() - written > REMEMBERED:
                        self._memory.remember(fresh)
                        fresh, written = [], time.monotonic()
                    done += len(rows)
                    percent = done * 100 // len(items)
                    if self._on_progress is not None and (percent != reported or done == len(items)):
                        reported = percent
                        self._on_progress(stage, done, len(items))
        finally:
            self._memory.remember(fresh)


def in_threads(work: Callable[[T], R], inputs: Iterable[T], name: str, *, threads: int, ahead: int) -> Iterator[R]:
    """Results of `work` in the inputs' order, computed in threads, at most `ahead` of them before they are taken."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            for value in inputs:
                pending.append(pool.submit(work, value))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _examine(
    read: Callable[[object], bytes], item: Item, decoding: bool, side: int | None, interpolation: str
) -> tuple[Finding, Pixels | None]:
    try:
        data = read(item.locator)
    except OSError as error:
        return Finding(b"", decoding, error.strerror or str(error), lasting=False), None
    except ValueError as error:
        return Finding(b"", decoding, str(error)), None
    content = hashlib.sha256(data).digest()
    if not decoding:
        return Finding(content, False), None
    remarks: list[str] = []
    try:
        image = decode(data, remarks.append, side=side, interpolation=interpolation)
    except UnreadableImage as error:
        return Finding(content, True, str(error)), None
    finding = Finding(content, True, remark="; ".join(remarks))
    return finding, None if side is None or too_long(image) else np.asarray(image)


def _text(name: str) -> str:
    """A name that SQLite accepts: one that is not UTF-8 has lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()


class _Memory:
    """Findings of earlier runs. A file that cannot be read or written only costs time."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._path = cache_dir() / "scan.sqlite"
        self._known: dict[str, tuple[int, str, bytes, int, str, str]] | None = None

    def recall(self, items: Sequence[Item]) -> Iterator[tuple[Item, Finding]]:
        """The findings that still hold: same place, id, size and time."""
        if self._known is None:
            self._known = self._load()
        for item in items:
            row = self._known.get(_text(item.id))
            if row is not None and row[:2] == (item.size, str(item.stamp)):
                yield item, Finding(row[2], bool(row[3]), row[4], remark=row[5])

    def _load(self) -> dict[str, tuple[int, str, bytes, int, str, str]]:
        if not self._path.exists():
            return {}
        query = "SELECT id, size, stamp, content, decoded, error, remark FROM findings WHERE place = ?"
        try:
            with contextlib.closing(self._connect()) as connection:
                return {row[0]: row[1:] for row in connection.execute(query, (_text(self._key),))}
        except sqlite3.Error:
            return {}

    def remember(self, findings: Sequence[tuple[Item, Finding]]) -> None:
        """Add findings."""
        if not findings:
            return
        key = _text(self._key)
        rows = [
            (key, _text(item.id), item.size, str(item.stamp), its.content, int(its.decoded), its.error, its.remark)
            for item, its in findings
        ]
        # A file that is locked for long or has no room is left as it is.
        with contextlib.suppress(sqlite3.OperationalError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > FILE_LIMIT:
                self._path.unlink()
            try:
                self._insert(rows)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged: what it holds can be found again
                with contextlib.suppress(sqlite3.Error):
                    self._path.unlink(missing_ok=True)
                    self._insert(rows)

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        with contextlib.closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=20)
        with connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                connection.execute("DROP TABLE IF EXISTS findings")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS findings (place TEXT, id TEXT, size INTEGER, stamp TEXT, content BLOB, "
                "decoded INTEGER, error TEXT, remark TEXT, PRIMARY KEY (place, id)) WITHOUT ROWID"
            )
        return connection
