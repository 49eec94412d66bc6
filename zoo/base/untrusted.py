"""Untrusted files and texts: YAML, JSON and zip read within limits of size and depth."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import yaml

from zoo.errors import ManifestError

MiB = 1 << 20
YAML_LIMIT = 4 * MiB  # bytes of a manifest, registry or recipe
JSON_LIMIT = 256 * MiB  # bytes of a run.json, whose largest part is a confusion matrix
CONFIG_LIMIT = 16 * MiB  # bytes of a model's config.json: tens of thousands of class names
VALUES = 200_000  # values of one YAML file; an alias counts for everything that it repeats
DEPTH = 50  # levels of nested lists and mappings
DIGITS = 40  # of a whole number in YAML
LARGEST = 2**63 - 1  # whole number in JSON

_END = struct.Struct("<4s4xHHII")  # a zip's end record without the length of its comment
_END64 = struct.Struct("<4s20xQQQQ")  # the same in zip64
_ENTRY = 46  # bytes of a zip's smallest directory entry

# The C loader is ten times faster. The subclass keeps the rules below away from other users of PyYAML.
_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
# PyYAML reads YAML 1.1, where `1e-3` is a text, and on, off, yes and no are booleans. As in YAML 1.2, here `lr: 1e-3`
# is a number and `cache: on` a text.
_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != _BOOL] for first, rules in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a whole regular file.

    Raises OSError if it cannot be read, is larger than `limit` bytes, or is a device or pipe, which might never end,
    and ValueError if the path holds a NUL character.
    """
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            kind = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
            text = os.strerror(kind) if kind == errno.EISDIR else "it is a device or a pipe, not a file"
            raise OSError(kind, text, os.fspath(path))
        # One byte more than its size, to notice a file that grows; `limit` would allocate that much memory at once.
        data = file.read(status.st_size + 1) if status.st_size <= limit else b""
        if len(data) > limit or status.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit // MiB} MiB", os.fspath(path))
        return data


def parse_yaml(text: str) -> Any:
    """Parse YAML safely; raises ValueError (one line) for invalid YAML, duplicate keys or exceeded limits."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Nodes().check(node, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except Exception as error:  # PyYAML's constructors raise ValueError, IndexError and others
        raise ValueError(" ".join(str(error).split())[:500] or type(error).__name__) from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raises ValueError (one line) if it is invalid, nested too deep, or holds too large a whole number."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH} deep") from None
    level = [content]
    for _ in range(DEPTH + 1):
        if not level:
            return content
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, int) and not -LARGEST <= value <= LARGEST:
                raise ValueError(f"it holds a whole number beyond {LARGEST}")
        level = below
    raise ValueError(f"it is nested more than {DEPTH} deep")


class _Nodes:
    """Checks the number and depth of a YAML document's values, aliases expanded, before any is constructed."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}  # id of a node -> values, levels
        self._open: set[int] = set()  # ids of the nodes around the current one

    def check(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        if id(node) not in self._known:
            if id(node) in self._open:
                raise ValueError("it contains itself")
            self._open.add(id(node))
            self._known[id(node)] = self._measured(node, depth)
            self._open.discard(id(node))
        values, levels = self._known[id(node)]
        if depth + levels > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")
        if values > VALUES:
            raise ValueError(f"its aliases unfold into more than {VALUES:,} values")
        return values, levels

    def _measured(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
                raise ValueError(f"line {node.start_mark.line + 1}: a whole number of {len(node.value)} characters")
            return 1, 0
        if depth >= DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")
        children = node.value
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicates(node)
            children = [part for pair in node.value for part in pair]
        measured = [self.check(child, depth + 1) for child in children]
        return 1 + sum(size for size, _ in measured), 1 + max((levels for _, levels in measured), default=0)


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    """YAML forbids duplicate keys; PyYAML silently takes the last one."""
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add((key.tag, key.value))


def zip_members(path: Path, most: int) -> list[zipfile.ZipInfo]:
    """The members of a zip, counted before `zipfile` makes a record of each.

    Raises:
        zipfile.BadZipFile: It is damaged, or its members lie outside of it or overlap.
        ValueError: It has more than `most` members.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if _entries(file, path.stat().st_size, most) > most:
            raise ValueError(f"it has more than {most:,} members")
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    length = path.stat().st_size
    if any(info.header_offset < 0 or info.header_offset + info.compress_size > length for info in infos):
        raise zipfile.BadZipFile("a member lies outside of the file")
    if sum(info.compress_size for info in infos) > length:
        raise zipfile.BadZipFile("its members overlap")
    return infos


def _entries(file: IO[bytes], length: int, most: int) -> int:
    """The number of entries in a zip's directory; 0 if the directory is too small for more than `most`."""
    size = min(length, 22 + 65_535)
    file.seek(length - size)
    tail = file.read(size)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        return 0  # not a zip: zipfile reports the fault
    directory = _END.unpack_from(tail, place)[3]
    wide = tail.rfind(b"PK\6\6", 0, place)
    if wide >= 0 and len(tail) - wide >= _END64.size:
        directory = max(directory if directory != 0xFFFFFFFF else 0, _END64.unpack_from(tail, wide)[3])
    if min(directory, length) <= most * _ENTRY:
        return 0
    # Walk over the entries: each holds the lengths of its three texts.
    end = length - size + (wide if wide >= 0 else place)
    at, count = end - directory, 0
    while 0 <= at < end and count <= most:
        file.seek(at)
        head = file.read(_ENTRY)
        if len(head) < _ENTRY or head[:4] != b"PK\1\2":
            break
        at += _ENTRY + sum(struct.unpack_from("<HHH", head, 28))
        count += 1
    return count


def is_finite(value: Any) -> bool:
    """Whether it is a finite number, not a bool."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def read_yaml(path: Path) -> Any:
    """Parse a YAML file within the limits; raises ManifestError if it cannot be read or is not YAML."""
    try:
        return parse_yaml(read_bytes(path, YAML_LIMIT).decode())
    except OSError as error:
        raise ManifestError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except ValueError as error:  # UnicodeDecodeError is one too
        raise ManifestError(f"{path} is not valid YAML", why=str(error)) from error
