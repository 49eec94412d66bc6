"""Plugin installation by pip, or by uv if there is no pip; a plugin that does not work is removed again."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path
from typing import Any, Literal

from zoo.base import registry
from zoo.base.registry import PluginEntry
from zoo.errors import PluginError
from zoo.models.plugins import discovery
from zoo.models.plugins.discovery import GROUP, canonical, file_name, one_line, same_name

Listener = Callable[[str], None]  # called with each line that the installer prints

_CORE, _OWN_PACKAGE = "adaptzoo", "zoo"
# Files that tool managers leave at the root of their environments.
_UV_RECEIPT, _PIPX_RECORD = "uv-receipt.toml", "pipx_metadata.json"
_CAUSES = 3  # lines of the installer's explanation that a message quotes
_PATH = re.compile(r"[/\\]|\A\.|\A~|\.(?:whl|zip|tar\.gz)\Z")
# How pip and uv say that versions conflict, that there is no such package, and what they would add.
_RESOLVER = re.compile(r"ResolutionImpossible|conflicting dependencies|unsatisfiable|\(constraint\)", re.IGNORECASE)
_CLASH = re.compile(r"\A\s+.+ depends on .+|\(constraint\)|we can conclude")
_NOT_FOUND = re.compile(r"No matching distribution found|was not found in the|has no (?:usable )?wheels")
_MISSING = re.compile(r"(?:No matching distribution found for|Because) ([\w.-]+)")
_UV_ADDS = re.compile(r"^ \+ ([\w.-]+)(?:==(\S+)| @ )", re.MULTILINE)
# Other places of site-packages in a wheel, and the files there that Python runs whenever it starts.
_SITE = re.compile(r"\A(?:[^/]+\.data/(?:purelib|platlib)/|(?:.+/)?(?:site|dist)-packages/)")
_AT_START = re.compile(r"[^/]+\.pth\Z|(?:site|user)customize\b", re.IGNORECASE)


class InstallerFailed(PluginError):
    """Pip or uv ended with an error."""

    output = ""  # all that it printed


@dataclass(frozen=True, slots=True)
class Installer:
    """How packages get into this environment and out of it."""

    name: str  # "pip" or "uv"
    words: tuple[str, ...]  # the command up to its subcommand

    def wheel(self, what: str, folder: Path, options: tuple[str, ...], on_line: Listener) -> Path:
        """Build the wheel of a source folder or archive, or, with options, fetch a requirement's.

        uv does not fetch wheels: it returns a folder with the wheel's unpacked files.
        """
        if self.name == "pip":
            self._run("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *options, what, on_line=on_line)
        elif options:
            self._run("install", "--quiet", "--target", str(folder), "--no-deps", *options, what, on_line=on_line)
            return folder
        else:
            words = (self.words[0], "build", "--python", sys.executable, "--wheel", "--out-dir", str(folder), what)
            _run(words, f"{self.name} could not build {what}", on_line)
        return next(folder.glob("*.whl"))

    def plan(self, what: str, own: str, options: tuple[str, ...], on_line: Listener) -> dict[str, str]:
        """What a dry run would add or replace: versions by name, "" if it does not say."""
        if self.name == "uv":
            text = self._run("install", "--dry-run", "--upgrade-package", own, *options, what, on_line=on_line)
            return {canonical(name): version for name, version in _UV_ADDS.findall(text)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "report.json")
            self._run("install", "--dry-run", "--upgrade", "--report", str(file), *options, what, on_line=on_line)
            rows = json.loads(file.read_text(encoding="utf-8"))["install"]
        return {canonical(row["metadata"]["name"]): str(row["metadata"]["version"]) for row in rows}

    def install(self, what: str, options: tuple[str, ...], again: str | None, on_line: Listener) -> None:
        """Install a package and its dependencies; `again` is replaced even if its version stays the same."""
        if again and self.name == "uv":
            options += ("--reinstall-package", again)
        self._run("install", *options, what, on_line=on_line)
        if again and self.name == "pip":  # its --force-reinstall would fetch every dependency again
            self._run("install", "--force-reinstall", "--no-deps", *options, what, on_line=on_line)

    def uninstall(self, names: Iterable[str], on_line: Listener) -> None:
        """Remove distributions."""
        self._run("uninstall", *(("--yes",) if self.name == "pip" else ()), *names, on_line=on_line)

    def _run(self, subcommand: str, *rest: str, on_line: Listener) -> str:
        options: tuple[str, ...] = ("--python", sys.executable)
        if self.name == "pip":
            options = ("--no-input", "--disable-pip-version-check")
            options += () if subcommand == "uninstall" else ("--progress-bar", "off")
        what = f"{self.name} could not {subcommand} {rest[-1]}"
        return _run((*self.words, subcommand, *options, *rest), what, on_line)


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin to install, before anything is fetched."""

    kind: Literal["requirement", "wheel", "folder", "archive"]
    what: str  # for the installer: a requirement or an absolute path
    entry: PluginEntry | None = None  # the registry's, if its name was given

    @property
    def runs_code(self) -> bool:
        """Whether it must be built, which runs its code before it can be checked."""
        return self.kind in ("folder", "archive")


@dataclass(frozen=True, slots=True)
class Installed:
    """What was installed."""

    distribution: str
    version: str
    plugins: list[dict[str, Any]]  # their rows of `zoo plugins list --json`
    packages: dict[str, str]  # new or changed distributions, with their versions
    shared: list[tuple[str, str]]  # backbone names that another plugin has too, and the full names


@dataclass(frozen=True, slots=True)
class Target:
    """An installed distribution that brings plugins."""

    distribution: str
    version: str
    plugins: tuple[str, ...]


def find_installer(action: Literal["install", "uninstall"], what: str) -> Installer:
    """The installer for this environment; `what` is the package, for messages.

    Raises PluginError, with the command that works, if uv or pipx made this environment for one tool, the operating
    system manages it, or there is neither pip nor uv.
    """
    prefix, refused = Path(sys.prefix), f"{what} was not {action}ed"
    if (prefix / _UV_RECEIPT).is_file():
        extras = [name for name in _extras(prefix / _UV_RECEIPT) if not same_name(name, what)]
        extras += [what] if action == "install" else []
        words = "".join(f" --with {shlex.quote(name)}" for name in extras)
        why = "uv made this environment for one tool, and rebuilds it from that tool's options"
        raise PluginError(refused, why=why, fix=f"uv tool install {_CORE}{words}")
    if (prefix / _PIPX_RECORD).is_file():
        verb = "inject" if action == "install" else "uninject"
        why = "pipx made this environment, and keeps a record of what is in it"
        raise PluginError(refused, why=why, fix=f"pipx {verb} {_CORE} {shlex.quote(what)}")
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file():
        why = f"the operating system manages the Python in {sys.prefix}"
        fix = f"make an environment of your own: python3 -m venv .venv && .venv/bin/pip install {_CORE}"
        raise PluginError(refused, why=why, fix=fix)
    if importlib.util.find_spec("pip") is not None:
        # -P: a folder of the user's that is called pip must not run in its place.
        return Installer("pip", (sys.executable, "-P", "-m", "pip"))
    if uv := shutil.which("uv"):
        return Installer("uv", (uv, "pip"))
    fix = f"{shlex.quote(sys.executable)} -m ensurepip"
    raise PluginError(refused, why="this environment has no pip, and there is no uv", fix=fix)


def resolve(what: str) -> PluginSource:
    """Parse a registry name, a requirement ("adaptzoo-fir>=1.2"), or the path of a wheel, source archive or folder.

    Raises PluginError if it is none of these, or if no index has the registry's plugin.
    """
    entry = registry.load().plugins.get(what)
    if entry is not None:
        if not entry.published:
            unpublished = f"the plugin {what!r} cannot be installed by its name"
            raise PluginError(unpublished, why=entry.summary, fix=entry.how_to_install)
        return PluginSource("requirement", _requirement(entry.requirement), entry)
    if not _PATH.search(what) or " @ " in what:
        return PluginSource("requirement", _requirement(what))
    path = Path(what).expanduser().absolute()
    if path.is_dir():
        _check_folder(path)
        return PluginSource("folder", str(path))
    if not path.is_file():
        raise PluginError(f"there is no file or folder {what}", fix="see which plugins there are: zoo plugins search")
    return PluginSource("wheel" if path.suffix == ".whl" else "archive", str(path))


def install(source: PluginSource, installer: Installer, on_line: Listener) -> Installed:
    """Install a plugin, changing no other distribution, and check in a new process that it works.

    A folder or an archive is built first, which runs its code. Raises PluginError if the source is not a plugin, cannot
    be fetched, would change other distributions, or does not work; the environment is then as it was before.
    """
    before = _versions()
    with tempfile.TemporaryDirectory() as folder:
        name, version, copies = _install_checked(source, installer, before, Path(folder), on_line)
        own, rows, failure = canonical(name), *_list_plugins()
        mine = [row for row in rows if canonical(row["distribution"]) == own]
        broken = [row for row in mine if row["status"] != "ok"]
        changed = {each: number for each, number in _versions().items() if before.get(each) != number}
        if copies is None and not mine and not failure:
            raise _no_plugin(name)
        if broken or not mine:
            what = f"the plugin {broken[0]['name']!r} of {name} {version}" if broken else f"{name} {version}"
            what += " does not work once it is installed"
            if copies is not None:
                installer.uninstall(dict.fromkeys([own, *(each for each in changed if each not in before)]), on_line)
                for place, copy in copies.items():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(copy, place)
                what += ", and was taken out again" + (f"; {name} {before[own]} is back" if copies else "")
            why = "; ".join(str(row["error"]) for row in broken) or failure or "no plugin of it is listed"
            fix = f"ask the authors of {name}, or take another version"
            if any(row["status"] == "incompatible" for row in broken):
                fix = "upgrade adaptzoo: pip install --upgrade adaptzoo"
            raise PluginError(what, why=why, fix=fix)
    shared = [
        (each, f"{row['name']}/{each} or {other['name']}/{each}")
        for row in mine for each in row["backbones"] for other in rows
        if other not in mine and each in other["backbones"]
    ]  # fmt: skip
    return Installed(mine[0]["distribution"], mine[0]["version"], mine, changed, shared)


def _install_checked(
    source: PluginSource, installer: Installer, before: dict[str, str], work: Path, on_line: Listener
) -> tuple[str, str, dict[Path, Path] | None]:
    """Install a plugin if it passes the checks: its name, version, and copies of replaced files, None if unchanged."""
    links, file = work / "wheels", work / "constraints.txt"
    links.mkdir()
    options: tuple[str, ...] = ("--only-binary", ":all:", "--constraint", str(file))
    what, by_name = source.what, source.kind == "requirement"
    name, version = re.split(r"[^\w.-]", what)[0], ""
    try:
        if source.runs_code:
            what = str(installer.wheel(what, links, (), on_line))
        if not by_name:
            name, version = _check_wheel(Path(what))
        own = canonical(name)
        constraints = _constraints(before, own)
        file.write_text(constraints, encoding="utf-8")
        planned = installer.plan(what, own, options, on_line)
        replaced = [f"{each} {before[each]}" for each in planned if each in before and each != own]
        if replaced:  # no constraint holds it: its installation is editable or damaged
            raise _clash(source, name, version, f"it would replace {', '.join(replaced)}")
        if by_name and own not in planned:
            return name, before[own], None
        file.write_text(constraints + _pins(planned), encoding="utf-8")  # the checked versions get installed
        if by_name:
            name, version = _check_wheel(installer.wheel(what, links, options, on_line))
            options += ("--find-links", str(links)) if installer.name == "pip" else ()
        copies = _back_up(own, work)
        again = own if not by_name and before.get(own) == version else None
        installer.install(what, options, again, on_line)
    except InstallerFailed as error:
        raise _explained(error, source, name, version) from error
    finally:
        discovery.discover.cache_clear()
    return name, version, copies


def find(name: str) -> Target:
    """Find the distribution to remove by its name or a plugin's, importing none of its code.

    Raises PluginError if it is not installed, not a plugin, ambiguous, or needed by another distribution.
    """
    everything = discovery.scan().everything
    named = [item for item in everything if same_name(item.distribution, name)]
    named = named or [item for item in everything if item.name == name]
    owners = {canonical(item.distribution): item for item in named}
    if len(owners) > 1:
        fix = " or ".join(f"zoo plugins uninstall {owner.distribution}" for owner in owners.values())
        owning = " and ".join(f"{owner.distribution} {owner.version}" for owner in owners.values())
        raise PluginError(f"the plugin name {name!r} is claimed by {owning}", fix=fix)
    if not owners and canonical(name) in _installed():
        why = f"{name} is installed, but brings no plugin, so it is not for this command to remove"
        raise PluginError(f"{name} is not a zoo plugin", why=why, fix="see `zoo plugins list`")
    if not owners:
        fix = f"installed: {', '.join(sorted(item.name for item in everything))}"
        raise PluginError(f"no plugin or distribution named {name!r} is installed", fix=fix)
    ((own, item),) = owners.items()
    plugins = tuple(each.name for each in everything if canonical(each.distribution) == own)
    target = Target(item.distribution, item.version, plugins)
    refused, dependents = f"{target.distribution} cannot be removed", _dependents(target.distribution)
    if _CORE in dependents:
        fix = "to go on without its backbones, name the plugins to use: ZOO_PLUGINS=a,b"
        raise PluginError(refused, why="adaptzoo itself depends on it", fix=fix)
    if dependents:
        raise PluginError(refused, why=f"{dependents[0]} depends on it", fix=f"remove {dependents[0]} first")
    return target


def uninstall(target: Target, installer: Installer, on_line: Listener) -> None:
    """Remove a distribution, with the files that its installer would leave; PluginError if something stays."""
    own, failure = canonical(target.distribution), ""
    item = _installed().get(own)
    # The top-level packages of its plugins, even if entry_points.txt is damaged.
    _, _, section = _text(item, "entry_points.txt").partition(f"[{GROUP}]")
    packages = re.findall(r"=\s*([A-Za-z_]\w*)\s*:", section.partition("\n[")[0])
    try:
        installer.uninstall([target.distribution], on_line)
    except InstallerFailed as error:  # a damaged installation: `_remove_rest` removes its remains
        failure = error.why
    try:
        _remove_rest(_installed().get(own), packages)
    except OSError as error:
        raise PluginError(f"{target.distribution} could not be removed", why=str(error)) from error
    discovery.discover.cache_clear()
    left = _installed().get(own)
    if left is not None:
        what = f"{target.distribution} is still installed, at {getattr(left, '_path', 'a place unknown')}"
        why = failure or f"{installer.name} removes only what is in {sys.prefix}"
        raise PluginError(what, why=why, fix="remove it in the environment that it belongs to")


def _remove_rest(left: Distribution | None, packages: Iterable[str]) -> None:
    """Remove what the installer cannot: metadata without METADATA or RECORD, and packages without another owner."""
    places = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    info = Path(str(getattr(left, "_path", ""))).resolve()
    if info.suffix == ".dist-info" and info.parent in places:
        shutil.rmtree(info)
    owners = _owners()
    for path in (place / package for place in places for package in packages if package.lower() not in owners):
        if path.is_dir() and not path.is_symlink():
            files = (file for file in path.rglob("*") if not file.is_dir())
            if left is not None or all(file.suffix == ".pyc" for file in files):
                shutil.rmtree(path)


def _check_wheel(staged: Path) -> tuple[str, str]:
    """The distribution's name and version, from a wheel or a folder with its unpacked files.

    Raises PluginError if it is not a wheel or not a plugin, would write into another distribution's package, brings a
    file that Python runs at start, or claims the name of another plugin.
    """
    try:
        root: Any = staged if staged.is_dir() else zipfile.Path(staged)
        names = [path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()]
        files = [_SITE.sub("", posixpath.normpath(name)) for name in names or root.root.namelist()]
        (info,) = {file.partition("/")[0] for file in files if ".dist-info/" in file}
        package = PathDistribution(root / info)
        name, version = str(package.metadata["Name"]), str(package.metadata["Version"])
        entries = package.entry_points.select(group=GROUP)
    except Exception as error:  # not a zip, several packages, or metadata that cannot be parsed
        raise PluginError(f"{staged} is not a wheel", why=one_line(error), fix="build or download it again") from error
    if not entries:
        raise _no_plugin(name)
    own, refused, fix = canonical(name), f"{name} {version} is not installed", "do not trust it: ask its authors why"
    owners = _owners(apart_from=own)
    for top in sorted(_top_levels(files) & owners.keys()):
        why = f"it would write into the package {top!r}, which belongs to {owners[top]}"
        raise PluginError(refused, why=why, fix=fix)
    for file in filter(_AT_START.match, files):
        raise PluginError(refused, why=f"Python would run its {file} whenever it starts", fix=fix)
    for item in discovery.scan().everything:
        if item.name in entries.names and canonical(item.distribution) != own:
            taken = f"the plugin name {item.name!r} is taken: {item.distribution} {item.version} has it"
            fix = f"keep it, or: zoo plugins uninstall {item.distribution}"
            if _CORE in _dependents(item.distribution):
                fix = f"keep it, and ask the authors of {name} for another name"
            raise PluginError(f"{taken}, and {name} {version} claims it", fix=fix)
    return name, version


def _check_folder(folder: Path) -> None:
    """Refuse a source folder that cannot be a plugin, before any of its code runs."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        if (folder / "setup.py").is_file():
            return  # its entry points show only once it runs
        fix = "name the folder that has it, or make a plugin: zoo plugins new NAME"
        raise PluginError(f"{folder} is not a Python project", why="it has no pyproject.toml", fix=fix)
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError) as error:
        raise PluginError(f"{file} cannot be read", why=one_line(error)) from error
    if isinstance(project, dict) and "entry-points" not in project.get("dynamic", ()):
        groups = project.get("entry-points", {})
        if not (isinstance(groups, dict) and groups.get(GROUP)):
            raise _no_plugin(str(project.get("name") or folder))


def _requirement(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        url = (Requirement(text).url or "").partition("#")[0]
    except InvalidRequirement as error:
        what = f"{text!r} is neither a plugin of the registry nor a requirement, a wheel or a folder"
        fix = "see which plugins there are: zoo plugins search"
        raise PluginError(what, why=str(error).splitlines()[0], fix=fix) from error
    if url and not url.endswith(".whl"):
        why = "building whatever an address gives would run its code unread"
        fix = "get it first (git clone, for instance), look at it, then: zoo plugins install PATH"
        raise PluginError(f"{text!r} does not name a wheel", why=why, fix=fix)
    return text.strip()


def _no_plugin(name: str) -> PluginError:
    why = f"it declares no entry point in the group {GROUP!r}"
    fix = "see which plugins there are: zoo plugins search"
    return PluginError(f"{name} is not a zoo plugin, and was not installed", why=why, fix=fix)


def _clash(source: PluginSource, name: str, version: str, why: str) -> PluginError:
    what, fix = f"{name} {version}", f"try an earlier one: zoo plugins install '{name}<{version}'"
    if not version:  # the installer has tried every version
        what, fix = source.what, "ask for another version of the plugin"
    what += " was not installed: it cannot be had together with what is installed"
    return PluginError(what, why=why, fix=f"{fix}; or upgrade what it clashes with")


def _explained(error: InstallerFailed, source: PluginSource, name: str, version: str) -> PluginError:
    """The installer's failure in plain words, if it is one of the usual ones."""
    if not _NOT_FOUND.search(error.output) and _RESOLVER.search(error.output):
        clash = [line.strip().removeprefix("cause: ") for line in error.output.splitlines() if _CLASH.search(line)]
        return _clash(source, name, version, "; ".join(dict.fromkeys(clash)) or error.why)
    if _NOT_FOUND.search(error.output):
        missing = _MISSING.search(error.output)
        own = not version and (missing is None or same_name(missing[1], name))
        what = source.what if own else f"a dependency of {name} {version}".strip()
        fix = "check the name and the network; what has no wheels must be downloaded and built: "
        fix += "zoo plugins install PATH"
        if own and Path(source.what).is_dir():
            fix = f"for the folder of that name: zoo plugins install {source.what}{os.sep}"
        return PluginError(f"there is no wheel of {what} to install", why=error.why, fix=fix)
    fix = f"zoo plugins uninstall {name}, then again" if "RECORD" in error.output else "see what it printed above"
    return PluginError(error.what, why=error.why, fix=fix)


def _list_plugins() -> tuple[list[dict[str, Any]], str]:
    """The rows of `zoo plugins list --json`, and its failure, from a new process: this one caches what it has found."""
    command = [sys.executable, "-P", "-m", "zoo", "plugins", "list", "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, "RANK": "0"})
    return ([], done.stderr.strip()[-500:]) if done.returncode else (json.loads(done.stdout), "")


def _constraints(versions: dict[str, str], own: str) -> str:
    """Constraints that fix what is installed, except editable distributions and `own` if adaptzoo can lack it."""
    installed = _installed().items()
    free = {name for name, item in installed if re.search(r'"editable": *true', _text(item, "direct_url.json"))}
    free |= set() if own == _CORE or _CORE in _dependents(own) else {own}
    return _pins({name: version for name, version in versions.items() if name not in free})


def _pins(versions: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in versions.items() if version[:1].isdigit())


def _installed() -> dict[str, Distribution]:
    """The distributions of this environment, by canonical name."""
    importlib.invalidate_caches()
    return {file_name(item): item for item in reversed(list(distributions()))}  # the first on sys.path counts


def _versions() -> dict[str, str]:
    metadata = ((name, item.metadata) for name, item in _installed().items())
    return {name: str(fields["Version"]) if fields else "" for name, fields in metadata}


def _text(item: Distribution | None, name: str) -> str:
    """A file of a distribution's metadata; "" if it is missing or damaged."""
    with suppress(Exception):
        return (item and item.read_text(name)) or ""
    return ""


def _dependents(name: str) -> list[str]:
    """The installed distributions that depend on one."""
    names = []
    for item in _installed().values():
        with suppress(Exception):  # a distribution with damaged metadata
            needs = [re.split(r"[^\w.-]", text)[0] for text in item.requires or () if "extra ==" not in text]
            names += [str(item.metadata["Name"])] if canonical(name) in map(canonical, needs) else []
    return names


def _back_up(name: str, folder: Path) -> dict[Path, Path]:
    """Copies of an installed distribution's files, as no index may have its version."""
    item = _installed().get(name)
    places = [Path(str(file.locate())) for file in (item and item.files) or ()]
    return {place: Path(shutil.copy2(place, folder / str(n))) for n, place in enumerate(places) if place.is_file()}


def _owners(*, apart_from: str = "") -> dict[str, str]:
    """The distribution of each top-level package and module."""
    owners = {_OWN_PACKAGE: _CORE}
    for name, item in _installed().items():
        if name != apart_from:
            files = (row[0] for row in csv.reader(_text(item, "RECORD").splitlines()) if row)
            owners |= dict.fromkeys(_top_levels(files), name)
    return owners


def _top_levels(files: Iterable[str]) -> set[str]:
    """The top-level packages and modules among files, in lower case: on some file systems, Torch is torch."""
    parts = (file.lower().partition("/") for file in files)
    names = {first.partition(".")[0] for first, slash, _ in parts if slash or first.endswith((".py", ".so", ".pyd"))}
    return {top for top in names if top.isidentifier() and top != "__pycache__"}


def _extras(receipt: Path) -> list[str]:
    """The packages in a uv tool's environment besides the tool itself."""
    try:
        rows = tomllib.loads(receipt.read_text(encoding="utf-8"))["tool"]["requirements"]
        return [str(row["name"]) for row in rows if not same_name(str(row["name"]), _CORE)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _run(words: tuple[str, ...], what: str, on_line: Listener) -> str:
    """Run a command and return what it prints."""
    lines: list[str] = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            lines.append(line.rstrip())
            on_line(lines[-1])
    output = "\n".join(lines)
    if process.returncode:
        causes = re.findall(r"^\s*(?:ERROR|cause):\s*(.+)", output, re.MULTILINE) or re.findall(r"\S.*\S", output)
        error = InstallerFailed(what, why="; ".join(causes[-_CAUSES:]))
        error.output = output
        raise error
    return output
