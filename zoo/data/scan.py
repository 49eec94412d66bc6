"""Reading every image once before training: what is unreadable, what is identical, and the decoded store.

What was found is remembered in an SQLite file by place, id, size and modification time, so that a second run reads no
image that has not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data.decode import VERSION, UnreadableImage, decode, no_warnings
from zoo.data.records import DataOptions, Item, Listing, Progress, Tally
from zoo.data.store import Pixels, Store, Writer, open_store, resized, store_path, trim_stores
from zoo.run import cache_dir

CHUNK = 16  # images a thread takes at a time
FILE_LIMIT = 512 << 20  # bytes of the SQLite file above which it is started afresh


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading one image told."""

    content: bytes  # sha256 of its bytes; empty when they could not be read
    decoded: bool  # whether it was also decoded
    error: str  # why it is unreadable; empty when it is fine
    lasting: bool = True  # whether the finding holds until the image changes; a failing disk's does not
    remark: str = ""  # what of the file is not in the image


class Scanner:
    """Reads images of one listing in threads, remembers the findings, and makes the decoded store."""

    def __init__(self, listing: Listing, options: DataOptions, on_progress: Progress | None) -> None:
        self._listing = listing
        self._options = options
        self._on_progress = on_progress
        self._found: dict[str, Finding] = {}
        self._memory = _Memory(listing.key)
        self.stores: list[Store] = []
        self.notes: list[str] = []

    def finding(self, item: Item) -> Finding:
        """What is known of an item that was scanned."""
        return self._found[item.id]

    def remarks(self) -> list[str]:
        """What a person should know about the images that were read: of how many it is true, and one of them."""
        found: dict[str, list[str]] = {}
        for name, finding in self._found.items():
            if finding.remark and not finding.error:
                found.setdefault(finding.remark, []).append(name)
        return [f"{len(names)} image(s) {remark} (such as {names[0]})" for remark, names in sorted(found.items())]

    def hash(self, items: Sequence[Item]) -> None:
        """Learn the content hashes of items without decoding them."""
        self._recall(items)
        missing = [item for item in items if item.id not in self._found]
        self._read(missing, "reading the images", decoding=False, writer=None)

    def check(self, items: Sequence[Item]) -> None:
        """Decode every item that was not decoded before, and make or open their store if one is wanted."""
        self._recall(items)
        options = self._options
        side = options.image_size
        room = options.store_bytes - sum(store.size for store in self.stores)
        wants_store = side is not None and len(items) * side**2 * 3 <= room
        if side is not None and options.store_bytes > 0 and not wants_store:
            self.notes.append("the decoded images would not fit into the cache: they are decoded in every epoch")
        missing = [item for item in items if not self._known(item)]
        if not wants_store or side is None:
            self._read(missing, "checking the images", decoding=True, writer=None)
            return
        if not missing and self._use(self._store_path(items, side), side):
            return
        writer = Writer(cache_dir() / "stores", side, options.interpolation, room)
        try:
            readable = [item for item in items if not (self._known(item) and self._found[item.id].error)]
            self._read(readable, "checking and decoding the images", decoding=True, writer=writer)
            path = self._store_path(items, side)
            if writer.finish(path) and self._use(path, side):
                trim_stores(options.store_bytes, keep=[store.path for store in self.stores])
        finally:
            writer.discard()
        if writer.given_up:
            self.notes.append(f"no decoded store: {writer.given_up}; images are decoded in every epoch")

    def stored(self, items: Sequence[Item]) -> tuple[Store | None, list[int]]:
        """The store that has these items and their rows in it; -1 for one that it does not have."""
        for store in self.stores:
            rows = [store.row(self._found[item.id].content) for item in items]
            if any(row >= 0 for row in rows):
                return store, rows
        return None, []

    def _use(self, path: Path, side: int) -> bool:
        store = open_store(path, side, self._options.interpolation)
        if store is None:
            return False
        self.stores.append(store)
        return True

    def _known(self, item: Item) -> bool:
        finding = self._found.get(item.id)
        return finding is not None and (finding.decoded or bool(finding.error))

    def _store_path(self, items: Sequence[Item], side: int) -> Path:
        good = (self._found[item.id] for item in items)
        contents = [finding.content for finding in good if not finding.error]
        return store_path(contents, side, self._options.interpolation)

    def _recall(self, items: Sequence[Item]) -> None:
        for item, finding in self._memory.recall(items):
            self._found.setdefault(item.id, finding)

    def _read(self, items: Sequence[Item], stage: str, *, decoding: bool, writer: Writer | None) -> None:
        if not items:
            return
        tally = Tally(stage, len(items), self._on_progress)
        reader = self._listing.reader
        side = writer.side if writer is not None else None

        def work(chunk: Sequence[Item]) -> list[tuple[Item, Finding, Pixels | None]]:
            return [(item, *_examine(reader.read, item, decoding, side, self._options.interpolation)) for item in chunk]

        fresh: list[tuple[Item, Finding]] = []
        try:
            with no_warnings():
                for rows in _in_order(work, items):
                    for item, finding, pixels in rows:
                        self._found[item.id] = finding
                        fresh.append((item, finding))
                        if writer is not None and pixels is not None:
                            writer.add(finding.content, pixels)
                    tally.step(len(rows))
        finally:
            self._memory.remember([(item, finding) for item, finding in fresh if finding.lasting])


def _in_order(
    work: Callable[[Sequence[Item]], list[tuple[Item, Finding, Pixels | None]]], items: Sequence[Item]
) -> Iterator[list[tuple[Item, Finding, Pixels | None]]]:
    """Run `work` on chunks of items in threads; results come in the items' order, few of them waiting in memory."""
    threads = max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    pending: deque[Future[list[tuple[Item, Finding, Pixels | None]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="zoo-scan") as pool:
        try:
            for start in range(0, len(items), CHUNK):
                pending.append(pool.submit(work, items[start : start + CHUNK]))
                if len(pending) > 3 * threads:
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
        return Finding(content, False, ""), None
    remarks: list[str] = []
    try:
        image = decode(data, remarks.append)
    except UnreadableImage as error:
        return Finding(content, True, str(error)), None
    pixels = np.asarray(resized(image, side, interpolation)) if side is not None else None
    return Finding(content, True, "", remark="; ".join(remarks)), pixels


def _text(name: str) -> str:
    """A name as SQLite takes it: one that is not UTF-8 holds lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()


class _Memory:
    """Findings of earlier runs. A cache that cannot be read or written costs time and nothing else."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._path = cache_dir() / "scan.sqlite"
        self._known: dict[str, tuple[int, str, bytes, int, str, str]] | None = None

    def recall(self, items: Sequence[Item]) -> list[tuple[Item, Finding]]:
        """The findings that still hold: same place, id, size and time."""
        if self._known is None:
            self._known = self._load()
        recalled = []
        for item in items:
            row = self._known.get(_text(item.id))
            if row is not None and row[0] == item.size and row[1] == str(item.stamp):
                recalled.append((item, Finding(row[2], bool(row[3]), row[4], remark=row[5])))
        return recalled

    def _load(self) -> dict[str, tuple[int, str, bytes, int, str, str]]:
        if not self._path.exists():
            return {}
        try:
            with contextlib.closing(self._connect()) as connection:
                rows = connection.execute(
                    "SELECT id, size, stamp, content, decoded, error, remark FROM findings WHERE place = ?",
                    (_text(self._key),),
                )
                return {row[0]: row[1:] for row in rows}
        except sqlite3.Error:
            return {}

    def remember(self, findings: Sequence[tuple[Item, Finding]]) -> None:
        """Add findings."""
        if not findings:
            return
        rows = [
            (
                _text(self._key),
                _text(item.id),
                item.size,
                str(item.stamp),
                finding.content,
                int(finding.decoded),
                finding.error,
                finding.remark,
            )
            for item, finding in findings
        ]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > FILE_LIMIT:
                self._path.unlink()
            self._insert(rows)
        except sqlite3.OperationalError:
            return  # locked for long, or no room
        except sqlite3.DatabaseError:
            # Damaged: it holds nothing that cannot be found out again.
            with contextlib.suppress(OSError, sqlite3.Error):
                self._path.unlink(missing_ok=True)
                self._insert(rows)
        except OSError:
            return

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
