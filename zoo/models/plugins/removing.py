"""Removing plugins, broken ones too, until nothing of them is left."""

from __future__ import annotations

import csv
import importlib
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from zoo.errors import PluginError
from zoo.models.plugins import discovery, pip
from zoo.models.plugins.discovery import GROUP
from zoo.models.plugins.pip import Installer, InstallerFailed, Listener


@dataclass(frozen=True, slots=True)
class Target:
    """An installed distribution that brings plugins."""

    distribution: str
    version: str
    plugins: tuple[str, ...]


def find(name: str) -> Target:
    """Find what a person wants to remove. No code of it is imported.

    Args:
        name: A plugin's or a distribution's name.

    Raises:
        PluginError: It is not installed, is no plugin, is ambiguous, or something else needs it.
    """
    owners: dict[str, Target] = {}
    for item in discovery.scan().everything:
        key = discovery.canonical(item.distribution)
        known = owners[key].plugins if key in owners else ()
        owners[key] = Target(item.distribution, item.version, (*known, item.name))
    matches = [owner for owner in owners.values() if name in owner.plugins]
    by_distribution = owners.get(discovery.canonical(name))
    if by_distribution is not None:
        matches = [by_distribution]
    if len(matches) > 1:
        choices = " or ".join(f"zoo plugins uninstall {owner.distribution}" for owner in matches)
        owning = " and ".join(f"{owner.distribution} {owner.version}" for owner in matches)
        raise PluginError(f"the plugin name {name!r} is claimed by {owning}", fix=choices)
    if not matches:
        other = _installed(name)
        if other is not None:
            why = f"{name} is installed, but brings no plugin, so it is not for this command to remove"
            raise PluginError(f"{name} is no zoo plugin", why=why, fix="see `zoo plugins list`")
        known_names = ", ".join(sorted(plugin for owner in owners.values() for plugin in owner.plugins))
        raise PluginError(f"no plugin or distribution named {name!r} is installed", fix=f"installed: {known_names}")
    (target,) = matches
    _refuse_needed(target)
    return target


def uninstall(target: Target, installer: Installer, on_line: Listener) -> None:
    """Remove a distribution, and what its installer would leave behind.

    Args:
        target: From `find`.
        installer: From `zoo.models.plugins.pip.here`.
        on_line: Told each line that the installer prints.

    Raises:
        PluginError: Something of it could not be removed.
    """
    distribution = _installed(target.distribution)
    packages = _packages(distribution) if distribution is not None else frozenset()
    failure = ""
    try:
        installer.uninstall([target.distribution], on_line)
    except InstallerFailed as error:  # a damaged installation: what is left of it is removed below
        failure = error.why
    importlib.invalidate_caches()
    discovery.discover.cache_clear()
    left = _installed(target.distribution)
    try:
        if left is not None:
            _sweep(left)
        _remove_shells(packages)
    except OSError as error:
        raise PluginError(f"{target.distribution} could not be removed", why=str(error)) from error
    importlib.invalidate_caches()
    left = _installed(target.distribution)
    if left is not None:
        raise PluginError(
            f"{target.distribution} is still installed, at {getattr(left, '_path', 'a place unknown')}",
            why=failure or f"{installer.name} removes only what is in {sys.prefix}",
            fix="remove it in the environment that it belongs to",
        )


def _refuse_needed(target: Target) -> None:
    """Refuse to remove what adaptzoo or another distribution depends on."""
    if any(discovery.same_name(target.distribution, name) for name in pip.needed()):
        raise PluginError(
            f"{target.distribution} cannot be removed",
            why="adaptzoo itself depends on it",
            fix="to go on without its backbones, name the plugins to use: ZOO_PLUGINS=a,b",
        )
    own = discovery.canonical(target.distribution)
    for distribution in distributions():
        try:
            needs = {discovery.canonical(re.split(r"[^\w.-]", text, maxsplit=1)[0])
                     for text in distribution.requires or () if "extra ==" not in text}  # fmt: skip
        except Exception:  # somebody else's damaged metadata
            continue
        if own in needs:
            name = str(distribution.metadata["Name"])
            raise PluginError(
                f"{target.distribution} cannot be removed", why=f"{name} depends on it", fix=f"remove {name} first"
            )


def _installed(name: str) -> Distribution | None:
    wanted = discovery.canonical(name)
    return next((item for item in distributions() if discovery.file_name(item) == wanted), None)


def _packages(distribution: Distribution) -> frozenset[str]:
    """The top-level packages that its plugins are in, also where entry_points.txt is half-readable."""
    text = distribution.read_text("entry_points.txt") or ""
    _, _, section = text.partition(f"[{GROUP}]")
    return frozenset(re.findall(r"=\s*([A-Za-z_]\w*)\s*:", section.partition("\n[")[0]))


def _places() -> list[Path]:
    """Where this environment keeps its packages."""
    return [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]


def _sweep(distribution: Distribution) -> None:
    """Remove by hand what the installer cannot: metadata without METADATA or RECORD, and the plugin's own package."""
    info = Path(str(getattr(distribution, "_path", ""))).resolve()
    if info.suffix != ".dist-info" or info.parent not in _places():
        return
    record = info / "RECORD"
    root = Path(sys.prefix).resolve()
    if record.is_file():
        for row in csv.reader(record.read_text(encoding="utf-8", errors="replace").splitlines()):
            path = (info.parent / row[0]).resolve() if row else info
            if path.is_file() and path.is_relative_to(root):
                path.unlink()
    else:
        for package in _packages(distribution):
            folder = info.parent / package
            if folder.is_dir() and not folder.is_symlink() and not _claimed(package, info):
                shutil.rmtree(folder)
    shutil.rmtree(info)


def _claimed(package: str, info: Path) -> bool:
    """Whether another distribution has files in a package."""
    for other in distributions():
        if Path(str(getattr(other, "_path", ""))).resolve() == info:
            continue
        if re.search(rf"^{package}/", other.read_text("RECORD") or "", re.MULTILINE):
            return True
    return False


def _remove_shells(packages: frozenset[str]) -> None:
    """Remove folders in which nothing but bytecode is left."""
    for place in _places():
        for folder in (place / package for package in packages):
            files = [path for path in folder.rglob("*") if not path.is_dir()]
            if folder.is_dir() and not folder.is_symlink() and all(path.suffix == ".pyc" for path in files):
                shutil.rmtree(folder)
