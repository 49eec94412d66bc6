"""Reading every image once before training: what is unreadable, what is identical, and the decoded store.

What was found is remembered in an SQLite file by place, id, size and modification time, so that a second run reads no
image that has not changed. It is written down on the way, and so are the decoded images: a run that is killed leaves
what it did to the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from zoo.base.files import cache_dir
from zoo.data.store.decode import VERSION, UnreadableImage, decode, no_warnings
from zoo.data.store.segment import Pixels
from zoo.data.store.store import Builder, Store, resized, too_long
from zoo.data.types import DataOptions, Item, Listing, Progress, Tally, cores

CHUNK = 8  # images a thread takes at a time
REMEMBERED = 5.0  # seconds after which findings are written down
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
    """Reads images of one listing in threads, remembers the findings, and fills the decoded store."""

    def __init__(self, listing: Listing, options: DataOptions, on_progress: Progress | None) -> None:
        self._listing = listing
        self._options = options
        self._on_progress = on_progress
        self._found: dict[str, Finding] = {}
        self._memory = _Memory(listing.key)
        self._store: Store | None = None
        if options.image_size is not None and options.store_bytes > 0:
            self._store = Store(options.image_size, options.interpolation)
        self._images = self._lacking = 0  # that were checked; that the store does not have
        self._why = ""

    @property
    def notes(self) -> list[str]:
        """What a person should know about the store."""
        if not self._lacking:
            return []
        whole = self._lacking == self._images
        what = "no decoded store" if whole else f"{self._lacking} images are not in the decoded store"
        return [f"{what}: {self._why or 'it cannot be read back'}; such images are decoded in every epoch"]

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
        self._read(missing, "reading the images", decoding=False, builder=None)

    def check(self, items: Sequence[Item]) -> None:
        """Decode every item that was not decoded before or whose pixels are not in the store, if one is wanted."""
        self._recall(items)
        unknown = [item for item in items if not self._known(item)]
        store = self._store
        if store is None:
            self._read(unknown, "checking the images", decoding=True, builder=None)
            return
        store.find({self._found[item.id].content for item in items if item.id in self._found})
        builder = Builder(store, self._options.store_bytes)
        try:
            if not builder.given_up:
                unknown = [item for item in items if not self._known(item) or self._is_lacking(item, store)]
            self._read(unknown, "checking and decoding the images", decoding=True, builder=builder)
        finally:
            builder.close()  # what was done before an interruption is there for the next run
        self._images += len(items)
        self._lacking += sum(self._is_lacking(item, store) for item in items)
        self._why = builder.given_up or self._why

    def stored(self, items: Sequence[Item]) -> tuple[Store | None, list[int]]:
        """The store and the rows of these items in it; -1 for one that it does not have."""
        store = self._store
        return store, [] if store is None else [store.row(self._found[item.id].content) for item in items]

    def _known(self, item: Item) -> bool:
        finding = self._found.get(item.id)
        return finding is not None and (finding.decoded or bool(finding.error))

    def _is_lacking(self, item: Item, store: Store) -> bool:
        finding = self._found[item.id]
        return not finding.error and store.row(finding.content) < 0

    def _recall(self, items: Sequence[Item]) -> None:
        for item, finding in self._memory.recall(items):
            self._found.setdefault(item.id, finding)

    def _read(self, items: Sequence[Item], stage: str, *, decoding: bool, builder: Builder | None) -> None:
        if not items:
            return
        tally = Tally(stage, len(items), self._on_progress)
        reader = self._listing.reader

        def work(chunk: Sequence[Item]) -> list[tuple[Item, Finding, Pixels | None]]:
            side = self._options.image_size if builder is not None and not builder.given_up else None
            return [(item, *_examine(reader.read, item, decoding, side, self._options.interpolation)) for item in chunk]

        fresh: list[tuple[Item, Finding]] = []
        written = time.monotonic()
        try:
            with no_warnings():
                for rows in _in_order(work, items):
                    for item, finding, pixels in rows:
                        self._found[item.id] = finding
                        if finding.lasting:
                            fresh.append((item, finding))
                        if builder is not None and finding.decoded and not finding.error:
                            builder.add(finding.content, pixels)
                    if time.monotonic() - written > REMEMBERED:
                        self._memory.remember(fresh)
                        fresh, written = [], time.monotonic()
                    tally.step(len(rows))
        finally:
            self._memory.remember(fresh)


def _in_order(
    work: Callable[[Sequence[Item]], list[tuple[Item, Finding, Pixels | None]]], items: Sequence[Item]
) -> Iterator[list[tuple[Item, Finding, Pixels | None]]]:
    """Run `work` on chunks of items in threads; results come in the items' order, few of them waiting in memory."""
    threads = cores()
    pending: deque[Future[list[tuple[Item, Finding, Pixels | None]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="zoo-scan") as pool:
        try:
            for start in range(0, len(items), CHUNK):
                pending.append(pool.submit(work, items[start : start + CHUNK]))
                if len(pending) > 2 * threads:
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
    remark = "; ".join(remarks)
    if side is None or too_long(image):
        return Finding(content, True, "", remark=remark), None
    return Finding(content, True, "", remark=remark), np.asarray(resized(image, side, interpolation))


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
