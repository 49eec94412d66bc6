"""A disk that is full at any write, or not ours to write to: one clear error, and one can go on as if nothing were."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.nursery import ROOT, Nursery
from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from tests.faults.runs import Case, Cases, one_error
from zoo.training.state.checkpoint import load_checkpoint

DRAWS = 72  # as many as there may be kinds of writes
FULL = "No space left on device"


def kind_of(line: str) -> str:
    """What a write is for, without the numbers in its name: "write run/checkpoints/.step-#.pt.#.tmp"."""
    return re.sub(r"(?<=/\.tmp)\w+|(?<=/\.saving-)\w+|[0-9a-f]{6,}|\d+", "#", line)


@pytest.fixture(scope="session")
def writes(cases: Cases, starved: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every write of a run that finds room for all, in order."""
    case = cases.make(tmp_path_factory.mktemp("room"), "lp-ft")
    done = case.start(starved, full=(0, False))
    assert done.code == 0, done.err
    case.assert_as_without()
    lines = case.folder.with_name("work.writes").read_text().splitlines()
    assert {line.split()[0] for line in lines} >= {"write", "create", "mkdir"}
    return lines


def middle(writes: list[str], where: str) -> int:
    """The number of one of the writes into files whose path starts so."""
    numbers = [number for number, line in enumerate(writes, 1) if line.split()[1].startswith(where)]
    assert numbers, writes
    return numbers[len(numbers) // 2]


def meets_a_full_disk(case: Case, starved: Nursery, number: int, stays: bool) -> str:
    """Run into it, then go on with room again; the outcome."""
    ended = case.start(starved, full=(number, stays))
    survived = ended.code == 0
    if survived:  # what was to be written can be made again, and was done without
        assert "Traceback" not in ended.err
    else:
        one_error(ended)
        states: list[Path] = []
        if case.run.exists():
            assert (case.run / "run.json").exists() and "zoo adapt --resume" in ended.err, ended.err
            folder = case.run / "checkpoints"
            for place in (folder, folder / "refit"):  # of the first training, and of the second where it has begun
                if any(place.glob("step-*.*")):
                    states = list(place.glob("step-*.json"))
                    assert not states or load_checkpoint(place)[0] is not None
        done = case.go_on()
        assert done.code == 0 and (not states or "starting over" not in done.err), done.err
    case.assert_as_without()
    return AS_WITHOUT if survived else ONE_ERROR


@pytest.mark.parametrize(
    "where", ["run/checkpoints/.step-", "run/checkpoints/.tmp", "run/checkpoints/refit/.step-", "run/metrics.jsonl"]
)
def test_no_space_while_training(case: Case, starved: Nursery, writes: list[str], faults: Try, where: str) -> None:
    number = middle(writes, where)
    with faults("disk", "full from a write on", f"write {number}: {kind_of(writes[number - 1])}") as fault:
        assert meets_a_full_disk(case, starved, number, stays=True) == ONE_ERROR
        fault.survived(ONE_ERROR)


@pytest.mark.parametrize("where", ["run/.domains.json", "run/checkpoints/.guesses"])
def test_no_space_while_a_domain_is_looked_at(
    cases: Cases, tmp_path: Path, starved: Nursery, faults: Try, where: str
) -> None:
    (tmp_path / "room").mkdir()
    room, case = (cases.make(folder, "dann") for folder in (tmp_path / "room", tmp_path))
    assert room.start(starved, full=(0, False)).code == 0
    writes = room.folder.with_name("work.writes").read_text().splitlines()
    number = middle(writes, where)
    with faults("disk", "full from a write on", f"dann, write {number}: {kind_of(writes[number - 1])}") as fault:
        assert meets_a_full_disk(case, starved, number, stays=True) == ONE_ERROR
        fault.survived(ONE_ERROR)


@pytest.mark.heavy
@pytest.mark.parametrize("stays", [True, False], ids=["from then on", "once"])
@pytest.mark.parametrize("draw", range(DRAWS))
def test_no_space_at_each_kind_of_write(
    cases: Cases, tmp_path: Path, starved: Nursery, writes: list[str], faults: Try, draw: int, stays: bool
) -> None:
    kinds = sorted({kind_of(line) for line in writes})
    assert len(kinds) <= DRAWS, "some would never be drawn"
    if draw >= len(kinds):
        pytest.skip(f"there are {len(kinds)} kinds of writes")
    chosen = random.Random(f"{draw}, {stays}")
    number = chosen.choice([number for number, line in enumerate(writes, 1) if kind_of(line) == kinds[draw]])
    case = cases.make(tmp_path, "lp-ft")
    hits = "full from a write on" if stays else "full at one write"
    with faults("disk", hits, f"write {number}: {kinds[draw]}") as fault:
        fault.survived(meets_a_full_disk(case, starved, number, stays))


@pytest.mark.heavy
@pytest.mark.parametrize("kilobytes", [600, 1500, 3000, 5000])
def test_a_small_disk(cases: Cases, tmp_path: Path, faults: Try, kilobytes: int) -> None:
    """A real file system that is full, in a mount namespace of the process's own."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    case = cases.make(tmp_path, "lp-ft")
    words = ["adapt", "resnet_nano", "--dataset", case.photos, "--recipe", case.recipe, "--out", "run"]
    # Out of the namespace comes what was written: the rest of the test sees no mount.
    script = (
        'mount -t tmpfs -o size="$1"k tmpfs "$2" && cd "$2" && shift 2 || exit 99\n'
        'code=0; ZOO_CACHE="$PWD/cache" "$@" || code=$?; tar -C . -cf "$OLDPWD/out.tar" . ; exit $code'
    )
    command = ["unshare", "-m", "bash", "-c", script, "bash", str(kilobytes), str(case.folder)]
    with faults("disk", "a small file system", f"{kilobytes} kB") as fault:
        done = subprocess.run(
            [*command, sys.executable, "-m", "zoo", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
            capture_output=True,
            text=True,
        )
        if done.returncode == 99:
            pytest.skip("no small file system can be mounted here")
        subprocess.run(["tar", "-C", str(case.folder), "-xf", str(tmp_path / "out.tar")], check=True)
        assert done.returncode == 1 and done.stderr.count("error: ") == 1, done.stderr
        assert "the disk is full" in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert case.go_on().code == 0
        case.assert_as_without(states=False)
        fault.survived(ONE_ERROR)


@pytest.mark.parametrize(
    ("damage", "kill", "folder"),
    [
        ("truncated", ("training step", 30), "checkpoints"),
        ("one bit", ("training step", 30), "checkpoints"),
        ("one bit", ("refit training step", 30), "checkpoints/refit"),
        # Of the first training, when the second one, whose states stay whole, is under way.
        ("truncated", ("refit training step", 30), "checkpoints"),
    ],
)
def test_a_damaged_state(case: Case, faults: Try, damage: str, kill: tuple[str, int], folder: str) -> None:
    with faults("disk", "a damaged checkpoint", f"{damage}, in {folder}, at {kill[0]} {kill[1]}") as fault:
        killed = case.start(kill=kill)
        assert killed.status == -signal.SIGKILL
        newest = max((case.run / folder).glob("step-*.pt"), key=lambda path: path.stat().st_mtime_ns)
        content = bytearray(newest.read_bytes())
        if damage == "truncated":
            del content[-1000:]
        else:
            content[len(content) // 3] ^= 4
        newest.write_bytes(content)
        done = case.go_on()
        assert done.code == 0, done.err
        said = f"the checkpoint {newest.name} is damaged (its hash differs); using the one before"
        assert said in done.err
        case.assert_as_without()
        fault.survived(AS_WITHOUT)


READ_ONLY = """
import errno, os
real = os.open
def refused(path, flags, *rest, **named):
    if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and "/work/run" in str(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    return real(path, flags, *rest, **named)
os.open = refused
"""


def test_a_folder_that_cannot_be_written_to(case: Case, faults: Try) -> None:
    """Root may write anywhere, so the refusal is made up where Python opens files."""
    with faults("disk", "a read-only folder", "a new run") as fault:
        one_error(case.start(before=READ_ONLY), "Read-only file system")
        assert not (case.run / "run.json").exists()
        fault.survived(ONE_ERROR)
    with faults("disk", "a read-only folder", "a run that goes on") as fault:
        assert case.start(kill=("evaluation", 2)).status == -signal.SIGKILL
        one_error(case.go_on(before=READ_ONLY), "Read-only file system")
        assert case.go_on().code == 0
        case.assert_as_without()
        fault.survived(ONE_ERROR)


def test_two_processes_in_one_folder(case: Case, faults: Try) -> None:
    from zoo.runs.lock import held
    from zoo.runs.run_folder import Run

    with faults("folder", "two runs in one", "while the first is alive") as fault:
        assert case.start(kill=("training step", 9)).status == -signal.SIGKILL
        with held(Run(case.run)):
            one_error(case.resume(), f"{case.run} is in use", f"process {os.getpid()} on ", f"kill {os.getpid()}")
            one_error(case.start(), "run holds a run already")
        fault.survived(ONE_ERROR)
    with faults("folder", "two runs in one", "a lock of a dead process") as fault:
        holder = json.loads((case.run / "checkpoints" / "holder.json").read_text())
        holder["pid"] = 2**22 + 1  # larger than Linux gives
        (case.run / "checkpoints" / "holder.json").write_text(json.dumps(holder))
        assert case.go_on().code == 0
        case.assert_as_without()
        fault.survived(AS_WITHOUT)
    with contextlib.suppress(FileNotFoundError):
        assert not (case.run / "checkpoints").exists()
