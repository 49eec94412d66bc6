"""Clean environments and small wheels: what the tests of installing install for real, without any index."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.forks import HEAVY, Forks

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = """\
api: 1
name: {name}
summary: made for a test
groups:
  - {{name: stem, match: '(?:conv1|bn1)\\.'}}
  - {{name: body, match: 'layer[1-4]\\.'}}
  - {{name: head, match: 'fc\\.'}}
backbones:
  - {{name: {backbone}, arch: test_resnet, params: 469688, input: 160}}
"""


def wheel(
    folder: Path,
    distribution: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str] = {},
    entry_points: str = "",
    requires: tuple[str, ...] = (),
) -> Path:
    """Write a wheel as a build backend would, with whatever content: the broken ones too."""
    stem = f"{distribution.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {text}\n" for text in requires)
    content = {
        **files,
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points:
        content[f"{stem}.dist-info/entry_points.txt"] = entry_points
    record = ""
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    content[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


def plugin_wheel(folder: Path, name: str, **changes: Any) -> Path:
    """A wheel with a working manifest-only plugin, or one that `changes` break."""
    distribution = changes.pop("distribution", f"zoo-{name}")
    package = distribution.replace("-", "_")
    manifest = changes.pop("manifest", MANIFEST.format(name=name, backbone=changes.pop("backbone", f"{name}1")))
    files = {f"{package}/__init__.py": changes.pop("code", ""), f"{package}/zoo.yaml": manifest}
    files = changes.pop("files", files)
    entry = changes.pop("entry", name)
    entry_points = f"[zoo.plugins]\n{entry} = {package}:zoo.yaml\n"
    return wheel(folder, distribution, files=files, entry_points=entry_points, **changes)


@dataclass(frozen=True)
class Site:
    """An environment that sees zoo, its plugins and third-party packages of the running one, and has its own folder."""

    root: Path
    modules: tuple[str, ...] = HEAVY  # that its commands find imported already
    forks: list[Forks] = field(default_factory=list)  # one, from the first command that wants it

    @classmethod
    def make(cls, root: Path, *, without_pip: bool = False, modules: tuple[str, ...] = HEAVY) -> Site:
        venv.create(root, with_pip=False, symlinks=True)
        site = cls(root, modules)
        # The running environment's editable installations work through .pth files, which are not followed from there.
        seen = [ROOT, *(path.parent for path in sorted((ROOT / "plugins").glob("*/pyproject.toml")))]
        lent = list(dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))))
        if without_pip:
            links = root / "lent"
            links.mkdir()
            for entry in (path for folder in lent for path in Path(folder).iterdir()):
                if entry.suffix == ".dist-info":  # uv looks nowhere but here; copies, so that it can harm nobody
                    shutil.copytree(entry, site.packages / entry.name)
                elif entry.name != "pip":
                    (links / entry.name).symlink_to(entry)
            shutil.rmtree(next(site.packages.glob("pip-*.dist-info")))
            lent = [str(links)]
        lines = [*seen, *lent]
        (site.packages / "seen.pth").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return site

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = self.root.glob("lib/python*/site-packages")
        return found

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    def contents(self) -> set[str]:
        """Everything below its site-packages, and its scripts."""
        files = [*self.packages.rglob("*"), *(self.root / "bin").iterdir()]
        return {str(path.relative_to(self.root)) for path in files}

    def close(self) -> None:
        """End what it has started."""
        while self.forks:
            self.forks.pop().close()

    def run(
        self, *words: object, code: int | None = 0, whole: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python in it, without an index in reach; `whole`: from the interpreter's start, and not as a fork."""
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "ZOO_"))}  # fmt: skip
        offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                   "PIP_NO_CACHE_DIR": "1", "PIP_NO_BUILD_ISOLATION": "0", "UV_OFFLINE": "1", "UV_NO_INDEX": "1",
                   "UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_NO_BUILD_ISOLATION": "1", "OMP_NUM_THREADS": "1",
                   "ZOO_CACHE": str(self.root / "cache"), "NO_COLOR": "1"}  # fmt: skip
        command = [str(word) for word in (self.python, *words)]
        variables = {**kept, **offline, **environment}
        if whole:
            done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=300)  # fmt: skip
        else:
            if not self.forks:
                self.forks.append(Forks(self.python, self.modules, {**kept, **offline}))
            done = self.forks[0].run(command[1:], variables, self.root)
        assert code is None or done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def zoo(
        self, *words: object, code: int | None = 0, whole: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a `zoo` command in it."""
        return self.run("-m", "zoo", *words, code=code, whole=whole, **environment)

    def fault(self, *words: object, code: int = 1, **environment: str) -> dict[str, str]:
        """Run a `zoo` command that fails, and return the error that it prints."""
        found: dict[str, str] = json.loads(self.zoo(*words, "--json", code=code, **environment).stdout)["error"]
        return found

    def listed(self, **environment: str) -> dict[str, dict[str, Any]]:
        """What `zoo plugins list` says that is not part of adaptzoo, by distribution."""
        rows = json.loads(self.zoo("plugins", "list", "--json", **environment).stdout)
        return {row["distribution"]: row for row in rows if row["distribution"] not in IN_TREE}

    def pip(self, *words: object) -> None:
        """What somebody does who knows nothing of `zoo plugins`."""
        self.run("-m", "pip", "install", "--no-deps", *words)


IN_TREE = frozenset(path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml"))
