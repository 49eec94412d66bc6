from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import revisions
from tests.benchmarks import toy


def test_each_revision_is_checked_out_and_put_right_again(tmp_path, capsys):
    before, after = toy.moved(tmp_path / "project")
    arguments = toy.asked(revisions, tmp_path, "--before", before[:9])
    old, new = revisions.trees(arguments, "tree")
    assert (old.side, old.commit, new.side, new.commit) == ("before", before, "after", after)
    assert list(old.sources()) == ["zoo/__init__.py", "zoo/limits.py"]
    assert list(new.sources()) == ["zoo/__init__.py", "zoo/base/__init__.py", "zoo/base/bounds.py"]
    (old.path / "zoo/limits.py").write_text("broken = ")
    (tmp_path / "project/zoo/unfinished.py").write_text("")
    old, new = revisions.trees(arguments, "tree")
    assert old.sources()["zoo/limits.py"] == toy.LIMITS
    assert "zoo/unfinished.py" not in new.sources()
    assert capsys.readouterr().err == "what is not committed is left out\n"
    assert revisions.trees(arguments, "another")[0].path != old.path


def test_a_process_sees_its_own_revision_alone(tmp_path, monkeypatch):
    before, _ = toy.moved(tmp_path / "project")
    monkeypatch.setenv("ZOO_CACHE", "nowhere")
    for tree in revisions.trees(toy.asked(revisions, tmp_path, "--before", before), "tree"):
        code = "import os, zoo; print(zoo.__file__, os.environ.get('ZOO_CACHE'), os.environ['MORE'])"
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=tree.environment(MORE="x"), cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == f"{tree.path}/zoo/__init__.py None x\n"


def test_a_revision_that_is_not_there(tmp_path):
    toy.moved(tmp_path / "project")
    with pytest.raises(SystemExit, match="git rev-parse --verify nonsense"):
        revisions.trees(toy.asked(revisions, tmp_path, "--before", "nonsense"), "tree")
