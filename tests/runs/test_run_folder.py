import errno
import json
import os
from pathlib import Path
from urllib.error import URLError

import pytest

from zoo.base.files import cache_dir, free_path, friendly_os_errors, replacing, write_atomic
from zoo.errors import RunError, ZooError
from zoo.runs.run_folder import Result, Run, find, list_runs, named, read_record

RESULT = {"accuracy": 0.5, "loss": 1.0, "n": 4, "split": "test", "selected_on": "val", "top5": 1.0, "macro_f1": 0.4,
          "ece": 0.1, "confusion": [[1, 0], [0, 1]]}  # fmt: skip


def make(folder: Path, **record) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    run.write_record({"schema": 1, "status": "finished", "result": RESULT, **record})
    return run


def test_cache_folder_by_variable_then_by_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "zoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache" / "zoo"


@pytest.mark.parametrize("data", ["näme\n", b"\x00\xff"])
def test_write_makes_folders_and_leaves_nothing_else(tmp_path, data):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "old")
    write_atomic(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(path.parent.iterdir()) == [path]


def test_a_written_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError, match="half-way"), replacing(path) as temporary:
        temporary.write_text("new, but only ha")
        raise RuntimeError("half-way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_sees_a_part(tmp_path):
    path = tmp_path / "a"
    with replacing(path) as temporary:
        temporary.write_text("part")
        assert temporary.parent == tmp_path, "a rename is atomic within one file system only"
        assert not path.exists()
    assert path.read_text() == "part"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path, code):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ZooError) as caught, replacing(path):
        raise OSError(code, os.strerror(code))
    assert caught.value.what == f"the disk is full: {path} was not written"
    assert caught.value.why == os.strerror(code)
    assert caught.value.fix == "free some space, or choose another place with --out or ZOO_CACHE"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError) as caught:
        write_atomic(tmp_path / "file" / "run.json", "{}")
    assert caught.value.what == f"cannot write {tmp_path / 'file' / 'run.json'}"
    assert caught.value.why in ("Not a directory", "File exists")
    assert caught.value.fix == "choose another place with --out or ZOO_CACHE"


# A download into a temporary file fails with an OSError as well; "cannot write" would blame the disk.
@pytest.mark.parametrize("error", [URLError("no route"), ConnectionRefusedError(111, "refused"), TimeoutError("slow")])
def test_a_network_error_keeps_its_name(tmp_path, error):
    with pytest.raises(type(error)), friendly_os_errors(tmp_path):
        raise error


def test_paths_are_where_the_contract_says(tmp_path):
    run = Run(tmp_path / "a")
    assert run.name == "a"
    assert [path.name for path in (run.record_path, run.metrics_path, run.checkpoints, run.report)] == [
        "run.json", "metrics.jsonl", "checkpoints", "report.html",
    ]  # fmt: skip


def test_a_finished_run_gives_its_result(tmp_path):
    run = make(tmp_path / "a")
    assert run.finished
    assert (run.result.accuracy, run.result.n, run.result.split, run.result.selected_on) == (0.5, 4, "test", "val")


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    run = make(tmp_path / "a", status="interrupted", result=None)
    assert not run.finished
    with pytest.raises(RunError) as caught:
        _ = run.result
    assert caught.value.what == f"the run {run.path} is not finished (status: interrupted)"
    assert caught.value.fix == f"go on with it: zoo adapt --resume {run.path}"


def test_a_result_that_lacks_a_number(tmp_path):
    run = make(tmp_path / "a", result={"accuracy": 1.0})
    with pytest.raises(RunError, match=r"run\.json is damaged\n  why: its result has no macro_f1, top5, ece, loss, n"):
        _ = run.result


def test_a_record_is_json_that_people_can_read_and_comes_back(tmp_path):
    # Lone surrogates are what Python makes of a file name that is not UTF-8.
    record = {"schema": 1, "classes": ["Österreich", "猫"], "bad": [{"path": "caf\udce9.jpg"}]}
    run = Run(tmp_path)
    run.write_record(record)
    assert run.record == record
    assert "猫" in run.record_path.read_text(encoding="utf-8")


def test_a_record_never_holds_what_json_has_no_word_for(tmp_path):
    run = make(tmp_path / "a", status="running")
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_record({"schema": 1, "loss": float("nan")})
    assert run.record["status"] == "running"


def test_not_a_run_folder(tmp_path):
    (tmp_path / "image.jpg").write_text("")
    for path in (tmp_path, tmp_path / "gone", tmp_path / "image.jpg"):
        with pytest.raises(RunError) as caught:
            read_record(path)
        assert str(caught.value) == (
            f"{path} is not a run folder\n  why: it has no run.json\n  fix: see `zoo runs` for the runs here"
        )


@pytest.mark.parametrize(
    ("asked", "near"),
    [("resnet-fotos", "resnet-photos"), ("runs/resnet-photo", "resnet-photos"), ("otherwhere/third", None),
     ("elsewere/second", "elsewhere/second"), ("photo", None)],
)  # fmt: skip
def test_a_run_that_is_not_there_suggests_the_nearest(tmp_path, monkeypatch, asked, near):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/resnet-photos", "runs/vit-flowers", "elsewhere/second"):
        make(tmp_path / name)
    (tmp_path / "photo").mkdir()  # which is no run
    with pytest.raises(RunError) as caught:
        named(asked)
    assert caught.value.what == f"{asked} is not a run folder"
    hint = f"did you mean the run {near}? Otherwise " if near else ""
    assert caught.value.fix == f"{hint}see `zoo runs` for the runs here"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1,', r"run\.json cannot be read\n  why: Expecting"),
        ("[" * 100_000, r"run\.json cannot be read"),
        ("[]", r"run\.json is not a run's record\n  why: it has no `schema` number"),
        ('{"schema": "1"}', r"run\.json is not a run's record"),
        ('{"schema": 2, "zoo": "9.9"}', r"written by a newer zoo \(9\.9\)\n  fix: pip install --upgrade adaptzoo"),
    ],
)
def test_damaged_records(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        read_record(tmp_path)


def test_find_by_path_by_bare_name_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs" / "a")
    make(tmp_path / "elsewhere")
    assert find("a") == Run(Path("runs/a"))
    assert find("runs/a") == Run(Path("runs/a"))
    assert find(tmp_path / "elsewhere") == Run(tmp_path / "elsewhere")
    for reference in ("b", "resnet50", "hf-hub:me/x", "x" * 5000):
        assert find(reference) is None


def test_runs_are_listed_oldest_first(tmp_path):
    for number, name in enumerate(["b", "c", "a"]):
        run = make(tmp_path / name)
        os.utime(run.record_path, (1000 + number, 1000 + number))
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    assert [run.name for run in list_runs(tmp_path)] == ["b", "c", "a"]
    assert list_runs(tmp_path / "gone") == []


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("resnet50-cifar10", "resnet50-cifar10"),
        ("timm/convnext_tiny-my data", "timm-convnext_tiny-my-data"),
        ("../../etc", "etc"),
        ("猫", "run"),
        ("", "run"),
    ],
)
def test_a_free_path_is_a_plain_name_under_the_root(tmp_path, name, folder):
    assert free_path(tmp_path, name) == tmp_path / folder
    (tmp_path / folder).mkdir()
    assert free_path(tmp_path, name) == tmp_path / f"{folder}-2"
    (tmp_path / f"{folder}-2").mkdir()
    assert free_path(tmp_path, name) == tmp_path / f"{folder}-3"


def test_record_files_end_with_a_newline(tmp_path):
    run = make(tmp_path)
    assert run.record_path.read_text().endswith("}\n") and json.loads(run.record_path.read_text())


def test_what_cannot_be_measured_is_no_damage(tmp_path):
    """No reported image has any label: there is no mean average precision, and everything else holds."""
    result = {"problem": "multi-label", "map": None, "accuracy": 1.0, "macro_f1": 0.0, "micro_f1": 0.0, "loss": 0.1,
              "n": 4, "split": "test", "selected_on": "val"}  # fmt: skip
    assert Result.missing(result) == [] and Result.from_record(result).map is None
    del result["map"]
    assert Result.missing(result) == ["map"]
    assert Result.missing({**result, "map": 0.5, "accuracy": None}) == ["accuracy"]
