"""Scaffold: the files of a new plugin, complete and with a test that passes."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from zoo.base.files import friendly_os_errors
from zoo.errors import PluginError
from zoo.models.plugins import discovery

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*\Z")
_PREFIX = "adaptzoo-"


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The files written for a new plugin."""

    name: str  # the plugin's name
    distribution: str
    folder: Path
    files: tuple[str, ...]  # relative to the folder


def create(name: str, folder: Path | None = None, *, module: bool = False) -> Scaffold:
    """Write a new plugin; `module` adds one that registers an architecture. `folder` is `./adaptzoo-<name>` if None.

    Raises PluginError if the name is invalid or taken or the folder exists, ZooError if it cannot be written.
    """
    if not _NAME.match(name) or keyword.iskeyword(name):
        why = "a name is of lower case letters, digits, '-' and '_', and begins with a letter"
        fix = f"for instance: zoo plugins new {_proposal(name)}"
        raise PluginError(f"{name!r} cannot name a plugin", why=why, fix=fix)
    if name.startswith(_PREFIX):
        what = f"{name!r} is the distribution's name: it is made from the plugin's"
        raise PluginError(what, fix=f"zoo plugins new {name.removeprefix(_PREFIX)}")
    owner = next((item for item in discovery.scan().everything if item.name == name), None)
    if owner is not None:
        what = f"the plugin name {name!r} is taken by {owner.distribution} {owner.version}, which is installed"
        raise PluginError(what, fix=f"choose another, for instance: zoo plugins new my-{name}")
    distribution = _PREFIX + name.replace("_", "-")
    folder = Path(distribution) if folder is None else folder
    if os.path.lexists(folder):
        fix = f"choose another place: zoo plugins new {name} --dir FOLDER"
        raise PluginError(f"{folder} is there already, and nothing in it was changed", fix=fix)
    package = distribution.replace("-", "_")
    values = {
        "name": name,
        "ident": name.replace("-", "_"),
        "distribution": distribution,
        "package": package,
        "dependencies": '"timm>=1.0.31", "torch>=2.6"' if module else '"timm>=1.0.31"',
    }
    templates = {
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        f"{package}/__init__.py": "init.py",
        f"{package}/zoo.yaml": "zoo-with-module.yaml" if module else "zoo.yaml",
        "tests/test_plugin.py": "test_plugin.py",
    }
    if module:
        templates[f"{package}/models.py"] = "models.py"
    source = resources.files("zoo.models.plugins") / "templates"
    with friendly_os_errors(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{distribution}-", dir=folder.absolute().parent))
        try:
            inside = staging / "plugin"  # mkdtemp makes its folder readable for the user alone
            for file, template in templates.items():
                text = (source / f"{template}.txt").read_text(encoding="utf-8")
                path = inside / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(Template(text).substitute(values), encoding="utf-8")
            inside.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Scaffold(name, distribution, folder, tuple(sorted(templates)))


def _proposal(name: str) -> str:
    proposed = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
    return proposed if _NAME.match(proposed) and not keyword.iskeyword(proposed) else "fir"
