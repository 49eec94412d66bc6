"""What is installed: the manifest of every plugin, found by its entry point and without importing its code."""

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
    """What is installed: usable plugins and faults side by side, each sorted by name."""

    plugins: tuple[Plugin, ...]
    faults: tuple[PluginFault, ...]

    @property
    def everything(self) -> tuple[Plugin | PluginFault, ...]:
        """Both, where only name, distribution and version matter."""
        return (*self.plugins, *self.faults)


@cache
def discover() -> Discovery:
    """The installed plugins that are to be used.

    `ZOO_PLUGINS=a,b` leaves the others out as if they were not installed, and `ZOO_STRICT_PLUGINS=1` makes a fault of
    any that is left an error.

    Raises:
        PluginError: `ZOO_PLUGINS` names what is not installed, or a plugin is broken and `ZOO_STRICT_PLUGINS` is set.
    """
    found = scan()
    wanted = chosen()
    if wanted is not None:
        here = sorted({plugin.name for plugin in found.plugins} | {fault.name for fault in found.faults})
        absent = [repr(name) for name in sorted(wanted) if name not in here]
        if absent:
            raise PluginError(
                f"ZOO_PLUGINS names {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
                fix=f"correct or unset ZOO_PLUGINS; installed: {', '.join(here) or 'none'}",
            )
        found = Discovery(
            tuple(plugin for plugin in found.plugins if plugin.name in wanted),
            tuple(fault for fault in found.faults if fault.name in wanted),
        )
    if found.faults and os.environ.get("ZOO_STRICT_PLUGINS", "") not in ("", "0"):
        raise PluginError(
            "; ".join(str(fault) for fault in found.faults),
            why="ZOO_STRICT_PLUGINS is set, so every installed plugin must work",
            fix=f"zoo plugins uninstall {found.faults[0].distribution}, or unset ZOO_STRICT_PLUGINS",
        )
    return found


def chosen() -> frozenset[str] | None:
    """The names in `ZOO_PLUGINS`; None where it is not set and every plugin is used."""
    text = os.environ.get("ZOO_PLUGINS", "").strip()
    return frozenset(name for name in re.split(r"[,\s]+", text) if name) if text else None


def scan() -> Discovery:
    """Read the manifest of every installed plugin, whatever the environment variables say.

    Nothing of a plugin is imported: an entry point names a file in a top-level package, and the package is only
    located. One broken plugin never hides another.
    """
    found: dict[str, list[tuple[EntryPoint, str, str]]] = defaultdict(list)
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
        except Exception as error:  # a file that cannot be parsed; most distributions are no business of ours
            if _mentions_us(distribution):
                name, version = _identity(distribution, stem)
                cause = f"its entry_points.txt cannot be read: {one_line(error)}"
                faults.append(PluginFault(name, name, version, "error", cause, repair(name)))
            continue
        for entry in entries:
            found[entry.name].append((entry, *_identity(distribution, stem)))
    for name in sorted(found):
        claims = found[name]
        if len(claims) > 1:
            owners = " and ".join(sorted(f"{owner} {version}" for _, owner, version in claims))
            for _, owner, version in claims:
                cause = f"its name is claimed by {owners}"
                faults.append(PluginFault(name, owner, version, "error", cause, _one_of(claims)))
            continue
        entry, owner, version = claims[0]
        try:
            path = _manifest_path(entry, owner)
            plugins.append(read_manifest(path, entry_point=name, distribution=owner, version=version))
        except ManifestError as error:
            status: Literal["error", "incompatible"] = "incompatible" if "upgrade adaptzoo" in error.fix else "error"
            cause = f"{error.what}: {error.why}" if error.why else error.what
            faults.append(PluginFault(name, owner, version, status, cause, error.fix))
        except Exception as error:  # a stranger's packaging can fail in any way; it must not stop the others
            faults.append(PluginFault(name, owner, version, "error", one_line(error)))
    return Discovery(tuple(plugins), tuple(sorted(faults, key=lambda fault: (fault.name, fault.distribution))))


def repair(distribution: str) -> str:
    """What to do about a damaged installation."""
    return f"reinstall it, or: zoo plugins uninstall {distribution}"


def _one_of(claims: list[tuple[EntryPoint, str, str]]) -> str:
    return " or ".join(f"zoo plugins uninstall {owner}" for owner in sorted(owner for _, owner, _ in claims))


def file_name(distribution: Distribution) -> str:
    """The distribution's normalised name from its folder's name: parsing everybody's METADATA costs 50 ms."""
    folder = getattr(distribution, "_path", None)  # absent for finders that keep no files
    name = Path(str(folder)).name if folder is not None else str(distribution.metadata["Name"])
    name = re.sub(r"\.(dist-info|egg-info|egg)\Z", "", name)
    name = re.sub(r"-[0-9][^-]*(-py[0-9.]+)?\Z", "", name)
    return canonical(name)


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
    """Whether an entry_points.txt that cannot be parsed, or is not even text, holds a plugin of ours."""
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
    """The top-level package and the file in it that an entry point names.

    Raises:
        ManifestError: It is not written `package:zoo.yaml`.
    """
    package, _, file = entry.value.partition(":")
    if not package or "." in package or not file:
        raise ManifestError(f"the entry point must be 'package:zoo.yaml' with a top-level package, not {entry.value!r}")
    return package, file


def _manifest_path(entry: EntryPoint, owner: str) -> Path:
    package, file = split_entry(entry)
    located = importlib.util.find_spec(package)
    if located is None or not located.submodule_search_locations:
        raise ManifestError(
            f"the package {package!r} is not there", why="it may be half-uninstalled", fix=repair(owner)
        )
    for folder in located.submodule_search_locations:
        path = Path(folder) / file
        if path.is_file():
            return path
    raise ManifestError(f"the package {package!r} has no file {file!r}", fix=repair(owner))
