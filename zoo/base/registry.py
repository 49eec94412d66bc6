"""The registry: installable plugins and named data sets.

It ships with the package (`registry.yaml`). A user's own file, `ZOO_REGISTRY` or else `~/.config/zoo/registry.yaml`,
adds entries and replaces those of the same name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from zoo.base.untrusted import read_yaml
from zoo.errors import ManifestError

BUILTIN = ("digits",)

_SECTIONS = {"plugins", "datasets"}
_PLUGIN = {"requirement", "summary", "homepage", "backbones", "published"}
_TEXTS = ("hub", "builtin", "config", "revision", "image", "label", "license")  # optional texts of a data set
_DATASET = {*_TEXTS, "splits", "summary", "gated", "hflip", "classes"}
_SPLITS = ("train", "val", "test")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """A plugin that can be installed."""

    name: str
    requirement: str  # what pip installs: "adaptzoo-resnet"
    summary: str
    homepage: str | None = None
    backbones: tuple[str, ...] = ()  # short names
    published: bool = True  # whether an index has it; otherwise anybody could upload something under that name

    @property
    def how_to_install(self) -> str:
        """The command, with what to do first if no index has the plugin."""
        if self.published:
            return f"zoo plugins install {self.name}"
        page = f" (see {self.homepage})" if self.homepage else ""
        return f"no index has {self.requirement}: get its folder or wheel{page}, then zoo plugins install PATH"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A named data set, on the Hub or built in."""

    name: str
    summary: str
    hub: str | None = None  # "ORG/NAME"
    builtin: str | None = None  # "digits"
    config: str | None = None  # the Hub data set's configuration
    revision: str | None = None  # branch, tag or commit on the Hub
    image: str | None = None  # column of images
    label: str | None = None  # column of labels
    splits: dict[str, str] = field(default_factory=dict)  # "train", "val", "test" -> the Hub data set's split
    license: str | None = None
    gated: bool = False  # whether its terms must be accepted on its page first
    hflip: bool = True  # whether a mirrored image still shows its class
    classes: int | None = None  # their number

    @property
    def page(self) -> str | None:
        """Where it is described, and where the terms of a gated one are accepted."""
        return f"https://huggingface.co/datasets/{self.hub}" if self.hub else None


@dataclass(frozen=True, slots=True)
class Registry:
    """The entries, by name."""

    plugins: dict[str, PluginEntry]
    datasets: dict[str, DatasetEntry]


def load() -> Registry:
    """The shipped registry with the user's own entries; raises ManifestError with every fault of an invalid file."""
    own, shipped = user_path(), _read(_shipped_path())
    if not own.is_file():
        if os.environ.get("ZOO_REGISTRY"):
            raise ManifestError(f"ZOO_REGISTRY names {own}, which is not there", fix="correct or unset ZOO_REGISTRY")
        return shipped
    added = _read(own)
    return Registry({**shipped.plugins, **added.plugins}, {**shipped.datasets, **added.datasets})


def user_path() -> Path:
    """The user's own registry file, which need not exist."""
    if explicit := os.environ.get("ZOO_REGISTRY"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "zoo" / "registry.yaml"


def _shipped_path() -> Path:
    """In the package if installed as a wheel, next to it in a checkout."""
    package = Path(str(resources.files("zoo")))
    inside = package / "registry.yaml"
    return inside if inside.is_file() else package.parent / "registry.yaml"


def _read(path: Path) -> Registry:
    status = path.stat() if path.exists() else None
    return _parse(path, (status.st_size, status.st_mtime_ns) if status else None)


@lru_cache(maxsize=8)
def _parse(path: Path, _version: tuple[int, int] | None) -> Registry:
    content = read_yaml(path)
    if content is None:
        return Registry({}, {})
    if not isinstance(content, dict):
        raise ManifestError(f"{path} must hold a mapping", why=f"it holds {type(content).__name__}")
    faults = [f"{key}: unknown key" for key in content if key not in _SECTIONS]
    plugins = {name: _plugin(name, row, faults) for name, row in _section(content, "plugins", faults)}
    datasets = {name: _dataset(name, row, faults) for name, row in _section(content, "datasets", faults)}
    if faults:
        raise ManifestError(f"{path} has {len(faults)} fault(s)", why="; ".join(faults), fix=f"edit {path}")
    return Registry(plugins, datasets)


def _section(content: dict[str, Any], key: str, faults: list[str]) -> list[tuple[str, dict[str, Any]]]:
    rows = content.get(key)
    if rows is None:
        return []
    if not isinstance(rows, dict):
        faults.append(f"{key}: must map names to entries")
        return []
    good = []
    for name, row in rows.items():
        if not isinstance(name, str) or not _NAME.match(name):
            faults.append(f"{key}.{name}: a name is a text of letters, digits, '.', '_' and '-' (quote a number)")
        elif not isinstance(row, dict):
            faults.append(f"{key}.{name}: must be a mapping")
        else:
            good.append((name, row))
    return good


class _Entry:
    """One entry of a file, whose faults are collected as its values are read."""

    def __init__(self, place: str, row: dict[str, Any], known: set[str], faults: list[str]) -> None:
        self.place, self.row, self.faults = place, row, faults
        faults += [f"{place}.{key}: unknown key" for key in row if key not in known]

    def fault(self, key: str, text: str) -> None:
        self.faults.append(f"{self.place}.{key}: {text}")

    def text(self, key: str) -> str | None:
        value = self.row.get(key)
        if value is None or (isinstance(value, str) and value):
            return value
        self.fault(key, "must be a text")
        return None

    def required(self, key: str) -> str:
        if self.row.get(key) is None:
            self.fault(key, "is missing")
        return self.text(key) or ""

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.row.get(key, default)
        if isinstance(value, bool):
            return value
        self.fault(key, "must be true or false")
        return default


def _plugin(name: str, row: dict[str, Any], faults: list[str]) -> PluginEntry:
    entry = _Entry(f"plugins.{name}", row, _PLUGIN, faults)
    backbones = row.get("backbones", [])
    if not isinstance(backbones, list) or not all(isinstance(item, str) for item in backbones):
        entry.fault("backbones", "must be a list of names")
        backbones = []
    requirement, summary = entry.required("requirement"), entry.required("summary")
    published = entry.flag("published", default=True)
    return PluginEntry(name, requirement, summary, entry.text("homepage"), tuple(backbones), published)


def _dataset(name: str, row: dict[str, Any], faults: list[str]) -> DatasetEntry:
    entry = _Entry(f"datasets.{name}", row, _DATASET, faults)
    texts: dict[str, Any] = {key: entry.text(key) for key in _TEXTS}
    hub, builtin, classes = texts["hub"], texts["builtin"], row.get("classes")
    if (hub is None) == (builtin is None):
        faults.append(f"{entry.place}: needs either `hub` or `builtin`")
    if hub is not None and not re.fullmatch(r"[\w.\-]+/[\w.\-]+", hub):
        entry.fault("hub", f"must be ORG/NAME, not {hub!r}")
    if builtin is not None and builtin not in BUILTIN:
        entry.fault("builtin", f"must be one of {', '.join(BUILTIN)}, not {builtin!r}")
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
        entry.fault("classes", "must be a whole number from 2 on")
    summary, splits = entry.required("summary"), _splits(entry)
    gated, hflip = entry.flag("gated", default=False), entry.flag("hflip", default=True)
    return DatasetEntry(name, summary, **texts, splits=splits, gated=gated, hflip=hflip, classes=classes)


def _splits(entry: _Entry) -> dict[str, str]:
    splits = entry.row.get("splits", {})
    if not isinstance(splits, dict):
        entry.fault("splits", "must map train, val or test to the data set's split names")
        return {}
    for ours, theirs in splits.items():
        if ours not in _SPLITS:
            entry.fault(f"splits.{ours}", f"must be one of {', '.join(_SPLITS)}")
        if not isinstance(theirs, str):
            entry.fault(f"splits.{ours}", "must be a text")
    if splits and "train" not in splits:
        entry.fault("splits", "`train` is missing")
    return dict(splits)
