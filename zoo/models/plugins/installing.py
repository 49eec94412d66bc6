"""Installing plugins: what a person names becomes a wheel that is read first and installed only if it can be used."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

from zoo.base import registry
from zoo.base.registry import PluginEntry
from zoo.errors import PluginError
from zoo.models.plugins import candidates, discovery, pip
from zoo.models.plugins.candidates import Candidate
from zoo.models.plugins.pip import Installer, InstallerFailed, Listener

_PATH = re.compile(r"[/\\]|\A\.|\A~|\.(?:whl|zip|tar\.gz)\Z")
# How pip and uv say that versions cannot be had together, and that there is no such package.
_RESOLVER = re.compile(r"ResolutionImpossible|conflicting dependencies|unsatisfiable|\(constraint\)", re.IGNORECASE)
_CLASH = re.compile(r"\A\s+.+ depends on .+|\(constraint\)|we can conclude")
_NOT_FOUND = re.compile(r"No matching distribution found|was not found in the|has no (?:usable )?wheels")


@dataclass(frozen=True, slots=True)
class PluginSource:
    """What is to be installed, before anything is fetched."""

    kind: Literal["requirement", "wheel", "folder", "archive"]
    what: str  # for the installer: a requirement or an absolute path
    entry: PluginEntry | None = None  # the registry's, where its name was given

    @property
    def runs_code(self) -> bool:
        """Whether building it runs its code before anybody has read it."""
        return self.kind in ("folder", "archive")


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation brought."""

    distribution: str
    version: str
    plugins: list[dict[str, Any]]  # their rows of `zoo plugins list --json`
    packages: dict[str, str]  # every distribution that is new or of another version now, with that version
    shared: list[tuple[str, str]]  # backbone names that an installed plugin has too, and what to write instead


def resolve(what: str) -> PluginSource:
    """Understand what a person wants installed.

    Args:
        what: A name from the registry, a requirement ("adaptzoo-fir>=1.2"), a wheel, a source archive or a folder.

    Raises:
        PluginError: It is none of these, or the registry's plugin is on no index.
    """
    entry = registry.load().plugins.get(what)
    if entry is not None:
        if not entry.published:
            raise PluginError(
                f"the plugin {what!r} cannot be installed by its name", why=entry.summary, fix=entry.how_to_install
            )
        return PluginSource("requirement", _requirement(entry.requirement), entry)
    if not _PATH.search(what) or " @ " in what:
        return PluginSource("requirement", _requirement(what))
    path = Path(what).expanduser().absolute()
    if path.is_dir():
        candidates.look_at_folder(path)
        return PluginSource("folder", str(path))
    if not path.is_file():
        raise PluginError(f"there is no file or folder {what}", fix="see which plugins there are: zoo plugins search")
    return PluginSource("wheel" if path.suffix == ".whl" else "archive", str(path))


def install(source: PluginSource, installer: Installer, on_line: Listener) -> Installed:
    """Fetch or build a plugin, read it, install it, and see in a new process that it works.

    Args:
        source: From `resolve`.
        installer: From `zoo.models.plugins.pip.here`.
        on_line: Told each line that the installer prints.

    Raises:
        PluginError: It is no plugin, cannot be used here, or cannot be had. Nothing of it is left then.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetched, scratch = Path(folder, "fetched"), Path(folder, "read")
        fetched.mkdir()
        scratch.mkdir()
        try:
            staged = installer.stage(source.what, fetched, on_line)
        except InstallerFailed as error:
            raise _explained(error, source) from error
        candidate = candidates.read(staged, scratch)
        found, pins = discovery.scan(), pip.pins()
        candidates.refuse_clashes(candidate, found, pins)
        before = _versions()
        own = discovery.canonical(candidate.distribution)
        what = str(staged)
        if source.kind == "requirement":  # by its name, so that `pip freeze` can name it too
            what = f"{candidate.distribution}=={candidate.version}"
        again = (
            candidate.distribution if before.get(own) == candidate.version and source.kind != "requirement" else None
        )
        try:
            installer.install(what, links=fetched, again=again, pins=pins, on_line=on_line)
        except InstallerFailed as error:
            raise _explained(error, source, candidate) from error
    importlib.invalidate_caches()
    discovery.discover.cache_clear()
    after = _versions()
    changed = {name: version for name, version in after.items() if before.get(name) != version}
    new = [name for name in changed if name not in before]
    rows = [row for row in listed() if discovery.canonical(row["distribution"]) == own]
    wrong = "; ".join(str(row["error"]) for row in rows if row["status"] != "ok")
    if wrong or not rows:
        if new:
            installer.uninstall(new, on_line)
        raise PluginError(
            f"{candidate.title} does not work once it is installed" + (", and was taken out again" if new else ""),
            why=wrong or "no plugin of it is listed",
            fix=f"ask the authors of {candidate.distribution}, or take another version",
        )
    return Installed(
        candidate.distribution, candidate.version, rows, changed, candidates.shared_backbones(candidate, found)
    )


def listed() -> list[dict[str, Any]]:
    """The rows of `zoo plugins list --json`, from a new process: this one remembers what it has seen.

    Raises:
        PluginError: The process failed, which no plugin should be able to cause.
    """
    command = [sys.executable, "-P", "-m", "zoo", "plugins", "list", "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, "RANK": "0"})
    if done.returncode:
        raise PluginError("the installed plugins cannot be listed any more", why=done.stderr.strip()[-500:])
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _requirement(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise PluginError(
            f"{text!r} is neither a plugin of the registry nor a requirement, a wheel or a folder",
            why=str(error).splitlines()[0],
            fix="see which plugins there are: zoo plugins search",
        ) from error
    if requirement.url and not requirement.url.partition("#")[0].endswith(".whl"):
        raise PluginError(
            f"{text!r} does not name a wheel",
            why="building whatever an address gives would run its code unread",
            fix="get it first (git clone, for instance), look at it, then: zoo plugins install PATH",
        )
    return text


def _versions() -> dict[str, str]:
    """The version of every distribution in this environment, by canonical name."""
    found: dict[str, str] = {}
    for distribution in distributions():
        metadata = distribution.metadata
        found.setdefault(discovery.file_name(distribution), str(metadata["Version"]) if metadata else "")
    return found


def _explained(error: InstallerFailed, source: PluginSource, candidate: Candidate | None = None) -> PluginError:
    """The installer's failure in our words where it is one of the usual ones."""
    if not _NOT_FOUND.search(error.output) and _RESOLVER.search(error.output):
        what = candidate.title if candidate else source.what
        clash = [line.strip().removeprefix("cause: ") for line in error.output.splitlines() if _CLASH.search(line)]
        return PluginError(
            f"{what} was not installed: it cannot be had together with what adaptzoo runs on",
            why="; ".join(dict.fromkeys(clash)) or error.why,
            fix="ask for another version of the plugin, or upgrade adaptzoo first",
        )
    if _NOT_FOUND.search(error.output):
        what = f"a dependency of {candidate.title}" if candidate else source.what
        near = Path(source.what)
        fix = (
            "check the name and the network; what has no wheels must be downloaded and built: zoo plugins install PATH"
        )
        if candidate is None and near.is_dir():
            fix = f"for the folder of that name: zoo plugins install {near}{os.sep}"
        return PluginError(f"there is no wheel of {what} to install", why=error.why, fix=fix)
    fix = "see what it printed above"
    if candidate is not None:
        damaged = re.search(r"no RECORD file|RECORD", error.output)
        fix = f"zoo plugins uninstall {candidate.distribution}, then again" if damaged else fix
    return PluginError(error.what, why=error.why, fix=fix)
