"""The installer of this environment: pip, or uv where there is no pip, and what neither of them may change."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from zoo.errors import PluginError
from zoo.models.plugins import discovery

Listener = Callable[[str], None]  # told each line that the installer prints

_CORE = "adaptzoo"
# Marks that the tool managers leave at the root of the environments they make.
_UV_RECEIPT, _PIPX_RECORD = "uv-receipt.toml", "pipx_metadata.json"
_CAUSES = 3  # lines of the installer's own explanation that a message repeats


class InstallerFailed(PluginError):
    """Pip or uv ended with an error.

    Args:
        output: Everything that it printed.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", output: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.output = output


@dataclass(frozen=True, slots=True)
class Installer:
    """How packages get into this environment and out of it."""

    name: str  # "pip" or "uv"
    words: tuple[str, ...]  # the command up to its subcommand

    def stage(self, what: str, folder: Path, on_line: Listener) -> Path:
        """Fetch or build one package without its dependencies and without installing it.

        Args:
            what: A requirement, a wheel, a source archive or a folder. The last two are built, which runs their code.
            folder: An empty folder to work in.
            on_line: Told each line that the installer prints.

        Returns:
            A wheel; or, as uv does not fetch wheels, a folder that holds what a wheel would have unpacked.

        Raises:
            InstallerFailed: It cannot be had, or not be built.
        """
        source = Path(what)
        if source.suffix == ".whl":
            return source
        if self.name == "pip":
            binary = () if source.exists() else ("--only-binary", ":all:")
            self._run("wheel", "--no-deps", "--wheel-dir", str(folder), *binary, what, on_line=on_line)
        elif source.exists():
            words = (self.words[0], "build", "--python", sys.executable, "--wheel", "--out-dir", str(folder), what)
            _run(words, f"{self.name} could not build {what}", on_line)
        else:
            options = ("--quiet", "--target", str(folder), "--no-deps", "--only-binary", ":all:")
            self._run("install", *options, what, on_line=on_line)
            return folder
        return next(folder.glob("*.whl"))

    def install(self, what: str, *, links: Path, again: str | None, pins: dict[str, str], on_line: Listener) -> None:
        """Install a package and its dependencies, the dependencies from wheels only.

        Args:
            what: A wheel or a requirement.
            links: The folder that `stage` has worked in. uv has what it fetched in its cache.
            again: The distribution that is replaced although its version stays the same; None for none.
            pins: Distributions that must stay at their versions.
            on_line: Told each line that the installer prints.

        Raises:
            InstallerFailed: Nothing was installed.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "constraints.txt")
            file.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
            options = ["--constraint", str(file), "--only-binary", ":all:"]
            if self.name == "pip":
                options += ["--find-links", str(links)]
            if again and self.name == "uv":
                options += ["--reinstall-package", again]
            self._run("install", *options, what, on_line=on_line)
            if again and self.name == "pip":  # its --force-reinstall would fetch every dependency anew
                self._run("install", "--force-reinstall", "--no-deps", *options, what, on_line=on_line)

    def uninstall(self, names: Iterable[str], on_line: Listener) -> None:
        """Remove distributions.

        Raises:
            InstallerFailed: One could not be removed.
        """
        self._run("uninstall", *(("--yes",) if self.name == "pip" else ()), *names, on_line=on_line)

    def _run(self, subcommand: str, *rest: str, on_line: Listener) -> None:
        options: tuple[str, ...] = ("--python", sys.executable)
        if self.name == "pip":
            options = ("--no-input", "--disable-pip-version-check")
            options += () if subcommand == "uninstall" else ("--progress-bar", "off")
        _run((*self.words, subcommand, *options, *rest), f"{self.name} could not {subcommand} {rest[-1]}", on_line)


def here(action: str, what: str) -> Installer:
    """The installer to use in this environment.

    Args:
        action: "install" or "uninstall".
        what: What is to be installed, or the distribution to be removed: for the message where another tool owns this
            environment.

    Raises:
        PluginError: uv or pipx made this environment for one tool, or the operating system manages it, or there is
            neither pip nor uv; each with the command that works.
    """
    prefix = Path(sys.prefix)
    if (prefix / _UV_RECEIPT).is_file():
        others = _extras(prefix / _UV_RECEIPT)
        kept = [name for name in others if not discovery.same_name(name, what)]
        kept += [what] if action == "install" else []
        words = "".join(f" --with {shlex.quote(name)}" for name in kept)
        why = "uv made this environment for one tool, and makes it anew from that tool's options"
        raise PluginError(f"{what} was not {action}ed", why=why, fix=f"uv tool install {_CORE}{words}")
    if (prefix / _PIPX_RECORD).is_file():
        verb = "inject" if action == "install" else "uninject"
        why = "pipx made this environment, and keeps a record of what is in it"
        raise PluginError(f"{what} was not {action}ed", why=why, fix=f"pipx {verb} {_CORE} {shlex.quote(what)}")
    managed = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    if sys.prefix == sys.base_prefix and managed.is_file():
        why = f"the operating system manages the Python in {sys.prefix}"
        raise PluginError(
            f"{what} was not {action}ed",
            why=why,
            fix=f"make an environment of your own: python3 -m venv .venv && .venv/bin/pip install {_CORE}",
        )
    if importlib.util.find_spec("pip") is not None:
        # -P: a folder of the person's that is called pip must not be run in its place.
        return Installer("pip", (sys.executable, "-P", "-m", "pip"))
    uv = shutil.which("uv")
    if uv is not None:
        return Installer("uv", (uv, "pip"))
    raise PluginError(
        f"{what} was not {action}ed",
        why="this environment has no pip, and there is no uv",
        fix=f"{shlex.quote(sys.executable)} -m ensurepip",
    )


def pins() -> dict[str, str]:
    """What no plugin may change: adaptzoo and everything it depends on, at the versions that are installed."""
    found = {}
    for name in (_CORE, *needed()):
        try:
            found[discovery.canonical(name)] = distribution(name).version
        except PackageNotFoundError:  # not for this platform, or damaged: nothing to hold
            continue
    return found


def needed() -> tuple[str, ...]:
    """The names of the distributions that adaptzoo itself depends on."""
    from packaging.requirements import Requirement

    try:
        requires = distribution(_CORE).requires or []
    except PackageNotFoundError:  # run from its source folder without being installed
        return ()
    parsed = [Requirement(text) for text in requires]
    return tuple(item.name for item in parsed if item.marker is None or item.marker.evaluate({"extra": ""}))


def _extras(receipt: Path) -> list[str]:
    """What a uv tool's environment was given beside the tool itself."""
    try:
        rows = tomllib.loads(receipt.read_text(encoding="utf-8"))["tool"]["requirements"]
        return [str(row["name"]) for row in rows if not discovery.same_name(str(row["name"]), _CORE)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _run(words: tuple[str, ...], what: str, on_line: Listener) -> None:
    lines: list[str] = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            lines.append(line.rstrip())
            on_line(lines[-1])
    if process.returncode:
        output = "\n".join(lines)
        found = [re.match(r"\s*(?:ERROR|cause):\s*(.+)", line) for line in lines]
        causes = [line[1] for line in found if line] or [line.strip() for line in lines if line.strip()]
        raise InstallerFailed(what, why="; ".join(causes[-_CAUSES:]), output=output)
