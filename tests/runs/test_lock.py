"""Who may write in a run's folder, and what is left of one that could not be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import DiskError, RunError
from zoo.runs import lock
from zoo.runs.lock import held, made, refuse_used, tidy
from zoo.runs.run_folder import Run

HOLD = "import sys; from pathlib import Path; from zoo.runs.run_folder import Run; from zoo.runs.lock import held\n" + (
    "with held(Run(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
)


def record(this: Run) -> dict[str, object]:
    return {"schema": 1, "name": this.name}


def test_a_folder_is_held_by_one_process_however_it_ends(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(RunError) as caught, held(Run(tmp_path)):
        pass
    assert caught.value.what == f"{tmp_path} is in use"
    assert caught.value.why.startswith(f"process {process.pid} on ")
    assert caught.value.fix == f"wait for it, or stop it: kill {process.pid}"
    process.kill()
    process.communicate()
    with held(Run(tmp_path)):
        assert json.loads((tmp_path / "checkpoints" / "holder.json").read_text())["pid"] == os.getpid()


def test_a_new_run_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = iter(["a", "a", "a-2"])  # what another process took just before
    monkeypatch.setattr(lock.files, "free_path", lambda root, name: root / next(names))
    with made(None, "a", record) as first, made(None, "a", record) as second:
        assert (first.path, second.path) == (tmp_path / "runs" / "a", tmp_path / "runs" / "a-2")
        assert first.record["name"] == "a" and second.record["name"] == "a-2"


def test_nothing_is_left_of_a_folder_whose_record_cannot_be_written(tmp_path: Path) -> None:
    def full(this: Run) -> dict[str, object]:
        raise DiskError("the disk is full", full=True)

    with pytest.raises(DiskError), made(tmp_path / "run", "", full):
        pass
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DiskError), made(tmp_path / "mine", "", full):
        pass
    assert not list((tmp_path / "mine").iterdir())


def test_a_folder_whose_process_was_killed_before_its_first_record_can_be_used(tmp_path: Path) -> None:
    early = tmp_path / "run" / "checkpoints"
    early.mkdir(parents=True)
    (early / "lock").touch()
    (tmp_path / "run" / ".run.json.abc.tmp").touch()
    with made(tmp_path / "run", "", record) as this:
        assert {path.name for path in this.path.iterdir()} == {"checkpoints", "run.json"}
    this.record_path.unlink()
    refuse_used(tmp_path / "run")
    (early / "step-000000001.pt").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        refuse_used(tmp_path / "run")


def test_what_a_killed_process_had_not_finished_goes_and_nothing_else(tmp_path: Path) -> None:
    this = Run(tmp_path)
    (tmp_path / ".saving-abc").mkdir()
    later = this.checkpoints / "refit"
    for place in (tmp_path, this.checkpoints, later):
        place.mkdir(exist_ok=True)
        for name in (".step-1.pt.0a1b2c.tmp", ".tmpX1y2", "kept.pt", ".hidden"):
            (place / name).touch()
    tidy(this)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "kept.pt", ".hidden"}
    assert {path.name for path in this.checkpoints.iterdir()} == {"refit", "kept.pt", ".hidden"}
    assert {path.name for path in later.iterdir()} == {"kept.pt", ".hidden"}
