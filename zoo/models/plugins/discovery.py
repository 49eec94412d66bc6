"""Plugin discovery: read the manifests of installed plugins by their entry points, importing no plugin code."""

from __future__ import annotations

import importlib.util
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Literal

from zoo.errors import ManifestError, PluginError
from zoo.models.plugins.manifest import read_manifest
from zoo.models.spec import Plugin

GROUP = "zoo.plugins"


@dataclass(frozen=True, slots=True)
class PluginFault:
    """A plugin that is installed but cannot be used, and why."""

    name: str  # the entry point's name
    distribution: str
    version: str
    status: Literal["error", "incompatible"]  # incompatible: it needs a newer adaptzoo
    cause: str  # one line
    fix: str = ""

    def __str__(self) -> str:
        """One line that names the distribution, its version and the cause."""
        fix = f" ({self.fix})" if self.fix else ""
        return f"plugin {self.name!r} from {self.distribution} {self.version} is not usable: {self.cause}{fix}"


@dataclass(frozen=True, slots=True)
class Discovery:
    """The installed plugins: usable ones and faults, each sorted by name."""

    plugins: tuple[Plugin, ...]
    faults: tuple[PluginFault, ...]

    @property
    def everything(self) -> tuple[Plugin | PluginFault, ...]:
        """Both, for their names, distributions and versions."""
        return (*self.plugins, *self.faults)


@cache
def discover() -> Discovery:
    """The installed plugins that `ZOO_PLUGINS=a,b` selects; all of them if it is not set.

    Raises PluginError if it names a plugin that is not installed, or a selected plugin is broken and
    `ZOO_STRICT_PLUGINS` is set.
    """
    installed, names = scan(), chosen()
    plugins, faults = installed.plugins, installed.faults
    if names is not None:
        known = sorted({item.name for item in installed.everything})
        absent = [repr(name) for name in sorted(names) if name not in known]
        if absent:
            what = f"ZOO_PLUGINS names {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed"
            raise PluginError(what, fix=f"correct or unset ZOO_PLUGINS; installed: {', '.join(known) or 'none'}")
        plugins = tuple(plugin for plugin in plugins if plugin.name in names)
        faults = tuple(fault for fault in faults if fault.name in names)
    if faults and os.environ.get("ZOO_STRICT_PLUGINS", "") not in ("", "0"):
        why = "ZOO_STRICT_PLUGINS is set, so every installed plugin must work"
        fix = f"zoo plugins uninstall {faults[0].distribution}, or unset ZOO_STRICT_PLUGINS"
        raise PluginError("; ".join(map(str, faults)), why=why, fix=fix)
    return Discovery(plugins, faults)


def chosen() -> frozenset[str] | None:
    """The names in `ZOO_PLUGINS`; None if it is not set, so that every plugin is used."""
    text = os.environ.get("ZOO_PLUGINS", "").strip()
    return frozenset(name for name in re.split(r"[,\s]+", text) if name) if text else None


def scan() -> Discovery:
    """Read the manifest of every installed plugin, whatever the environment variables say.

    An entry point names a file in a top-level package, which is only located. A broken plugin never hides another.
    """
    claims: dict[str, list[tuple[EntryPoint, str, str]]] = defaultdict(list)
    seen: set[str] = set()
    plugins: list[Plugin] = []
    faults: list[PluginFault] = []
    for distribution in distributions():
        stem = file_name(distribution)
        if stem in seen:  # an earlier entry of sys.path shadows it
            continue
        seen.add(stem)
        try:
            entries = distribution.entry_points.select(group=GROUP)
        except Exception as error:  # a file that cannot be parsed; most distributions bring no plugin
            if _mentions_us(distribution):
                name, version = _identity(distribution, stem)
                cause = f"its entry_points.txt cannot be read: {one_line(error)}"
                faults.append(PluginFault(name, name, version, "error", cause, repair(name)))
            continue
        for entry in entries:
            claims[entry.name].append((entry, *_identity(distribution, stem)))
    for name, owners in sorted(claims.items()):
        if len(owners) > 1:
            cause = (
                f"its name is claimed by {' and '.join(sorted(f'{owner} {version}' for _, owner, version in owners))}"
            )
            fix = " or ".join(f"zoo plugins uninstall {owner}" for owner in sorted(owner for _, owner, _ in owners))
            faults += [PluginFault(name, owner, version, "error", cause, fix) for _, owner, version in owners]
            continue
        entry, owner, version = owners[0]
        try:
            path = _manifest_path(entry, owner)
            plugins.append(read_manifest(path, entry_point=name, distribution=owner, version=version))
        except ManifestError as error:
            status: Literal["error", "incompatible"] = "incompatible" if "upgrade adaptzoo" in error.fix else "error"
            cause = f"{error.what}: {error.why}" if error.why else error.what
            faults.append(PluginFault(name, owner, version, status, cause, error.fix))
        except Exception as error:  # a plugin's packaging can fail in any way; it must not stop the others
            faults.append(PluginFault(name, owner, version, "error", one_line(error)))
    return Discovery(tuple(plugins), tuple(sorted(faults, key=lambda fault: (fault.name, fault.distribution))))


def repair(distribution: str) -> str:
    """What to do about a damaged installation."""
    return f"reinstall it, or: zoo plugins uninstall {distribution}"


def file_name(distribution: Distribution) -> str:
    """The distribution's normalised name, from its folder's name: parsing every METADATA costs 50 ms."""
    folder = getattr(distribution, "_path", None)  # absent for finders that keep no files
    name = Path(str(folder)).name if folder is not None else str(distribution.metadata["Name"])
    name = re.sub(r"\.(dist-info|egg-info|egg)\Z", "", name)
    return canonical(re.sub(r"-[0-9][^-]*(-py[0-9.]+)?\Z", "", name))


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_name(one: str, other: str) -> bool:
    """Whether two spellings name one distribution."""
    return canonical(one) == canonical(other)


def _identity(distribution: Distribution, stem: str) -> tuple[str, str]:
    """Name and version for messages; a damaged installation has lost its METADATA."""
    metadata = distribution.metadata
    name, version = (metadata[key] if metadata and key in metadata else None for key in ("Name", "Version"))
    return str(name or stem), str(version or "(version unknown)")


def _mentions_us(distribution: Distribution) -> bool:
    """Whether an entry_points.txt that cannot be parsed, or is not even text, declares a zoo plugin."""
    try:
        folder = getattr(distribution, "_path", None)
        if folder is None:
            return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
        return f"[{GROUP}]".encode() in Path(str(folder), "entry_points.txt").read_bytes()
    except Exception:
        return False


def one_line(error: BaseException) -> str:
    """An exception's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def split_entry(entry: EntryPoint) -> tuple[str, str]:
    """The top-level package and the file in it that an entry point names; ManifestError if it names none."""
    package, _, file = entry.value.partition(":")
    if not package or "." in package or not file:
        raise ManifestError(f"the entry point must be 'package:zoo.yaml' with a top-level package, not {entry.value!r}")
    return package, file


def _manifest_path(entry: EntryPoint, owner: str) -> Path:
    package, file = split_entry(entry)
    located = importlib.util.find_spec(package)
    if located is None or not located.submodule_search_locations:
        what = f"the package {package!r} is not there"
        raise ManifestError(what, why="it may be half-uninstalled", fix=repair(owner))
    for path in (Path(folder, file) for folder in located.submodule_search_locations):
        if path.is_file():
            return path
    raise ManifestError(f"the package {package!r} has no file {file!r}", fix=repair(owner))
