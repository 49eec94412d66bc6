"""A small project with two revisions, in the second of which a file has moved."""

from __future__ import annotations

import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

LIMITS = '''\
"""Keeps numbers within limits."""

import sys


def clamp(value: int, low: int = 0, high: int = 10) -> int:
    if value < low:
        return low
    if value > high:
        return high
    return value


def countdown(number: int) -> int:
    while number > 0:
        number -= 1
    return number


def never_called() -> str:
    return "an answer"
'''

TESTS = """\
import subprocess
import sys

from {module} import clamp, countdown


def test_low():
    assert clamp(-5) == 0


def test_high():
    assert clamp(50) == 10


def test_value():
    assert clamp(7) == 7


def test_countdown_in_a_process():
    code = "from {module} import countdown; assert countdown(3) == 0"
    subprocess.run([sys.executable, "-c", code], check=True)
"""


def commit(repository: Path, files: Mapping[str, str | None]) -> str:
    """Write files (None: remove one) and commit them."""
    if not repository.is_dir():
        subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
    git = ["git", "-C", str(repository), "-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "change"], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def moved(repository: Path) -> tuple[str, str]:
    """Two revisions: `zoo/limits.py` moves into a room, and the test of the lower limit goes."""
    before = commit(
        repository,
        {"zoo/__init__.py": "", "zoo/limits.py": LIMITS, "tests/test_limits.py": TESTS.format(module="zoo.limits")},
    )
    fewer = TESTS.format(module="zoo.base.bounds").replace("def test_low", "def not_a_test")
    after = commit(
        repository,
        {
            "zoo/limits.py": None,
            "zoo/base/__init__.py": "",
            "zoo/base/bounds.py": LIMITS.replace("import sys", "import sys\nimport zoo"),
            "tests/test_limits.py": fewer,
        },
    )
    return before, after


def asked(module: ModuleType, tmp_path: Path, *words: str) -> Namespace:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(["--repository", str(tmp_path / "project"), "--work", str(tmp_path / "work"), *words])
