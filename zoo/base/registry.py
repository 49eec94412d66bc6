"""The catalogue: which plugins can be installed, and which data sets have a name.

It ships with the package (`registry.yaml`); a person's own file adds to it: `ZOO_REGISTRY`, else
`~/.config/zoo/registry.yaml`. An entry there replaces the shipped one of the same name.
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

_TOP = {"plugins", "datasets"}
_PLUGIN = {"requirement", "summary", "homepage", "backbones", "published"}
_SOURCE = {"hub", "builtin", "config", "revision", "image", "label", "splits"}
_DATASET = _SOURCE | {"summary", "license", "gated", "hflip", "classes"}
_ROLES = ("train", "val", "test")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """A plugin that can be installed."""

    name: str
    requirement: str  # what pip installs: "adaptzoo-resnet"
    summary: str
    homepage: str | None = None
    backbones: tuple[str, ...] = ()  # what it offers, by short name
    published: bool = True  # whether an index has it; where none does, anybody could upload something by that name

    @property
    def how_to_install(self) -> str:
        """The command, with what has to come before it."""
        if self.published:
            return f"zoo plugins install {self.name}"
        page = f" (see {self.homepage})" if self.homepage else ""
        return f"no index has {self.requirement}: get its folder or wheel{page}, then zoo plugins install PATH"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A data set that has a name: on the Hub, or built in."""

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
    gated: bool = False  # its terms must be accepted on its page first
    hflip: bool = True  # whether a mirrored image still shows its class
    classes: int | None = None  # how many

    @property
    def page(self) -> str | None:
        """Where it is described, and where the terms of a gated one are accepted."""
        return f"https://huggingface.co/datasets/{self.hub}" if self.hub else None


@dataclass(frozen=True, slots=True)
class Registry:
    """Both halves of the catalogue, by name."""

    plugins: dict[str, PluginEntry]
    datasets: dict[str, DatasetEntry]


def load() -> Registry:
    """The shipped catalogue with the person's own entries added.

    Raises:
        ManifestError: A file is not as it should be; every fault of it in one message.
    """
    own = user_path()
    shipped = _read(_shipped_path())
    if not own.is_file():
        if os.environ.get("ZOO_REGISTRY"):
            raise ManifestError(f"ZOO_REGISTRY names {own}, which is not there", fix="correct or unset ZOO_REGISTRY")
        return shipped
    added = _read(own)
    return Registry({**shipped.plugins, **added.plugins}, {**shipped.datasets, **added.datasets})


def user_path() -> Path:
    """The person's own registry file, which need not exist."""
    explicit = os.environ.get("ZOO_REGISTRY")
    if explicit:
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "zoo" / "registry.yaml"


def _shipped_path() -> Path:
    """In the package when it was installed as a wheel, beside it in a checkout."""
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
    faults = [f"{key}: unknown key" for key in content if key not in _TOP]
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


def _plugin(name: str, row: dict[str, Any], faults: list[str]) -> PluginEntry:
    where = f"plugins.{name}"
    faults += [f"{where}.{key}: unknown key" for key in row if key not in _PLUGIN]
    backbones = row.get("backbones", [])
    if not isinstance(backbones, list) or not all(isinstance(item, str) for item in backbones):
        faults.append(f"{where}.backbones: must be a list of names")
        backbones = []
    return PluginEntry(
        name=name,
        requirement=_text(row, "requirement", where, faults, required=True) or "",
        summary=_text(row, "summary", where, faults, required=True) or "",
        homepage=_text(row, "homepage", where, faults),
        backbones=tuple(backbones),
        published=_flag(row, "published", where, faults, default=True),
    )


def _dataset(name: str, row: dict[str, Any], faults: list[str]) -> DatasetEntry:
    where = f"datasets.{name}"
    faults += [f"{where}.{key}: unknown key" for key in row if key not in _DATASET]
    hub = _text(row, "hub", where, faults)
    builtin = _text(row, "builtin", where, faults)
    if (hub is None) == (builtin is None) and not {"hub", "builtin"} & {fault.rpartition(":")[0] for fault in faults}:
        faults.append(f"{where}: needs either `hub` or `builtin`")
    if hub is not None and not re.fullmatch(r"[\w.\-]+/[\w.\-]+", hub):
        faults.append(f"{where}.hub: must be ORG/NAME, not {hub!r}")
    if builtin is not None and builtin not in BUILTIN:
        faults.append(f"{where}.builtin: must be one of {', '.join(BUILTIN)}, not {builtin!r}")
    classes = row.get("classes")
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
        faults.append(f"{where}.classes: must be a whole number from 2 on")
    return DatasetEntry(
        name=name,
        summary=_text(row, "summary", where, faults, required=True) or "",
        hub=hub,
        builtin=builtin,
        config=_text(row, "config", where, faults),
        revision=_text(row, "revision", where, faults),
        image=_text(row, "image", where, faults),
        label=_text(row, "label", where, faults),
        splits=_splits(row, where, faults),
        license=_text(row, "license", where, faults),
        gated=_flag(row, "gated", where, faults, default=False),
        hflip=_flag(row, "hflip", where, faults, default=True),
        classes=classes if isinstance(classes, int) else None,
    )


def _splits(row: dict[str, Any], where: str, faults: list[str]) -> dict[str, str]:
    splits = row.get("splits", {})
    if not isinstance(splits, dict):
        faults.append(f"{where}.splits: must map train, val or test to the data set's split names")
        return {}
    for role, split in splits.items():
        if role not in _ROLES:
            faults.append(f"{where}.splits.{role}: must be one of {', '.join(_ROLES)}")
        if not isinstance(split, str):
            faults.append(f"{where}.splits.{role}: must be a text")
    if splits and "train" not in splits:
        faults.append(f"{where}.splits: `train` is missing")
    return dict(splits)


def _text(row: dict[str, Any], key: str, where: str, faults: list[str], *, required: bool = False) -> str | None:
    value = row.get(key)
    if value is None:
        if required:
            faults.append(f"{where}.{key}: is missing")
        return None
    if not isinstance(value, str) or not value:
        faults.append(f"{where}.{key}: must be a text")
        return None
    return value


def _flag(row: dict[str, Any], key: str, where: str, faults: list[str], *, default: bool) -> bool:
    value = row.get(key, default)
    if not isinstance(value, bool):
        faults.append(f"{where}.{key}: must be true or false")
        return default
    return value
