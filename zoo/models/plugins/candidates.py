"""What a package would bring, read from its wheel or folder before anything of it is installed."""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PathDistribution, distribution
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import ManifestError, PluginError
from zoo.models.plugins import discovery
from zoo.models.plugins.discovery import GROUP, Discovery
from zoo.models.plugins.manifest import read_manifest
from zoo.models.spec import Plugin

_OWN_PACKAGE = "zoo"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin's distribution that is not installed yet."""

    distribution: str
    version: str
    plugins: tuple[Plugin, ...]  # read from a copy: their `root` is gone
    requires: tuple[str, ...]  # its dependencies, as its metadata writes them
    packages: frozenset[str]  # top-level names that it installs

    @property
    def title(self) -> str:
        """`adaptzoo-fir 1.0`."""
        return f"{self.distribution} {self.version}"


def look_at_folder(folder: Path) -> None:
    """Refuse a source folder that cannot be a plugin, before any of its code runs.

    Raises:
        PluginError: It is no Python project, or declares entry points but none of ours.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        if (folder / "setup.py").is_file():
            return  # only running it would tell
        raise PluginError(
            f"{folder} is no Python project",
            why="it has no pyproject.toml",
            fix="name the folder that has it, or make a plugin: zoo plugins new NAME",
        )
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError) as error:
        raise PluginError(f"{file} cannot be read", why=discovery.one_line(error)) from error
    if isinstance(project, dict) and "entry-points" not in project.get("dynamic", ()):
        groups = project.get("entry-points", {})
        if not (isinstance(groups, dict) and groups.get(GROUP)):
            raise _no_plugin(str(project.get("name") or folder))


def read(staged: Path, scratch: Path) -> Candidate:
    """Read a staged package: its names, its manifests, what it needs.

    Args:
        staged: A wheel, or a folder that holds what a wheel unpacks.
        scratch: An empty folder for copies.

    Raises:
        PluginError: It is not a wheel, is no plugin, or its manifest is not usable here.
    """
    root, files = (staged, _files(staged)) if staged.is_dir() else _unpack(staged, scratch)
    infos = sorted(root.glob("*.dist-info"))
    if len(infos) != 1:
        raise PluginError(f"{staged.name} is not a wheel", why=f"it has {len(infos)} .dist-info folders instead of one")
    package = PathDistribution(infos[0])
    try:
        name, version = str(package.metadata["Name"]), str(package.metadata["Version"])
        entries = package.entry_points.select(group=GROUP)
    except Exception as error:  # metadata that cannot be parsed, in any way
        raise PluginError(f"{staged.name} has damaged metadata", why=discovery.one_line(error)) from error
    if not entries:
        raise _no_plugin(name)
    plugins = []
    for entry in entries:
        try:
            top, file = discovery.split_entry(entry)
            if f"{top}/{file}" not in files:
                raise ManifestError(f"the package {top!r} has no file {file!r}")
            if not staged.is_dir():
                _extract(staged, scratch, [f"{top}/{file}"])
            path = root / top / file
            plugins.append(read_manifest(path, entry_point=entry.name, distribution=name, version=version))
        except ManifestError as error:
            fix = (
                error.fix if "upgrade adaptzoo" in error.fix else f"ask the authors of {name}, or take another version"
            )
            why = f"{error.what}: {error.why}" if error.why else error.what
            raise PluginError(
                f"the plugin {entry.name!r} of {name} {version} is not usable", why=why, fix=fix
            ) from error
    tops = {PurePosixPath(file).parts[0] for file in files}
    return Candidate(
        distribution=name,
        version=version,
        plugins=tuple(plugins),
        requires=tuple(package.requires or ()),
        packages=frozenset(top.removesuffix(".py") for top in tops if not top.endswith((".dist-info", ".data"))),
    )


def refuse_clashes(candidate: Candidate, found: Discovery, pins: dict[str, str]) -> None:
    """Refuse a plugin that cannot live beside what is installed.

    Args:
        candidate: The plugin.
        found: What is installed.
        pins: Distributions that must stay at their versions.

    Raises:
        PluginError: It would replace a part of adaptzoo, takes a plugin's name, or needs another version of what
            adaptzoo runs on.
    """
    own = discovery.canonical(candidate.distribution)
    if pins.get(own, candidate.version) != candidate.version:
        raise PluginError(
            f"{candidate.title} is not installed",
            why=f"{candidate.distribution} {pins[own]} belongs to this adaptzoo, and they change together",
            fix="pip install --upgrade adaptzoo",
        )
    taken = _OWN_PACKAGE in candidate.packages or sorted(candidate.packages & _packages_of(pins, apart_from=own))
    if taken:
        package = _OWN_PACKAGE if taken is True else taken[0]
        why = f"it would write into the package {package!r}, which adaptzoo runs on"
        raise PluginError(f"{candidate.title} is not installed", why=why, fix="do not trust it: ask its authors why")
    owners = [(item.name, item.distribution, item.version) for item in found.everything]
    for plugin in candidate.plugins:
        for name, owner, version in owners:
            if name == plugin.name and discovery.canonical(owner) != own:
                fix = f"keep it, or: zoo plugins uninstall {owner}"
                if discovery.canonical(owner) in pins:
                    fix = f"keep it, and ask the authors of {candidate.distribution} for another name"
                raise PluginError(
                    f"the plugin name {name!r} is taken: {owner} {version} has it, and {candidate.title} claims it",
                    fix=fix,
                )
    refused = [f"{text} (installed: {version})" for text, version in _conflicts(candidate, pins)]
    if refused:
        raise PluginError(
            f"{candidate.title} is not installed: it needs another version of what adaptzoo runs on",
            why=f"it asks for {', '.join(refused)}, and a plugin may not change that",
            fix=f"try an earlier one: zoo plugins install '{candidate.distribution}<{candidate.version}'; or upgrade "
            "adaptzoo first",
        )


def shared_backbones(candidate: Candidate, found: Discovery) -> list[tuple[str, str]]:
    """Short names that the candidate and an installed plugin both have, with the full names to write instead."""
    own = discovery.canonical(candidate.distribution)
    others = [plugin for plugin in found.plugins if discovery.canonical(plugin.distribution) != own]
    return [
        (spec.name, f"{spec.full_name} or {other.full_name}")
        for plugin in candidate.plugins
        for spec in plugin.backbones
        for another in others
        for other in another.backbones
        if other.name == spec.name
    ]


def _conflicts(candidate: Candidate, pins: dict[str, str]) -> Iterable[tuple[str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in candidate.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # the installer will say so
            continue
        version = pins.get(discovery.canonical(requirement.name))
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if version is not None and applies and not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier}", version


def _packages_of(pins: dict[str, str], *, apart_from: str) -> set[str]:
    """The top-level packages of pinned distributions."""
    found: set[str] = set()
    for name in pins:
        if name != apart_from:
            files: Any = distribution(name).files or ()
            tops = {file.parts[0] for file in files if len(file.parts) > 1}
            found |= {top for top in tops if top.isidentifier() and top != "__pycache__"}
    return found


def _no_plugin(name: str) -> PluginError:
    return PluginError(
        f"{name} is no zoo plugin, and was not installed",
        why=f"it declares no entry point in the group {GROUP!r}",
        fix="see which plugins there are: zoo plugins search",
    )


def _files(folder: Path) -> frozenset[str]:
    return frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _unpack(wheel: Path, scratch: Path) -> tuple[Path, frozenset[str]]:
    """Copy a wheel's metadata out of it; where to, and the names of all its files."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
        _extract(wheel, scratch, [name for name in names if name.partition("/")[0].endswith(".dist-info")])
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise PluginError(
            f"{wheel} is not a wheel", why=discovery.one_line(error), fix="build or download it again"
        ) from error
    return scratch, frozenset(names)


def _extract(wheel: Path, scratch: Path, names: Iterable[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            archive.extract(name, scratch)  # which takes `..` and leading slashes out of names
