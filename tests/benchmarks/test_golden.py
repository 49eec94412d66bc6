from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import benchmarks.__main__ as program
from benchmarks import golden, golden_compare, golden_images, golden_runs
from benchmarks.golden_cases import Case, Command, cases
from benchmarks.golden_compare import differences, read, read_checkpoints, write_checkpoints
from benchmarks.golden_runs import Failed, Folder

# A package that trains two numbers, without any library: a process of it starts at once.
ZOO = """
import array, json, os, pathlib, shutil, signal, struct, sys, time

RATE = 0.1
STEPS = 12

def save(weights, path):
    header = json.dumps({"weight": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}).encode()
    unfinished = path.with_name("unfinished")
    unfinished.write_bytes(struct.pack("<Q", len(header)) + header + array.array("d", weights).tobytes())
    os.replace(unfinished, path)

words = sys.argv[1:]
run = pathlib.Path("run")
if words[:2] == ["plugins", "list"]:
    print(json.dumps([{"name": "fake", "status": "ok"}]))
    raise SystemExit
if words[0] == "eval":
    print(json.dumps({"weight": array.array("d", (run / "model.safetensors").read_bytes()[-16:])[1]}))
    raise SystemExit
checkpoints = run / "checkpoints"
checkpoints.mkdir(parents=True, exist_ok=True)
saved = sorted(checkpoints.glob("*.safetensors"))
assert bool(saved) == ("--resume" in words)
weights = list(array.array("d", saved[-1].read_bytes()[-16:])) if saved else [0.0, 0.0]
metrics = run / "metrics.jsonl"
metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:len(saved)]) if saved else "")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for step in range(len(saved) + 1, STEPS + 1):
    weights[1] += RATE
    with metrics.open("a") as file:
        file.write(json.dumps({"event": "step", "step": step, "weight": weights[1], "seconds": time.time()}) + "\\n")
    save(weights, checkpoints / f"step-{step:02d}.safetensors")
    time.sleep(0.05)
time.sleep(0.1)
save(weights, run / "model.safetensors")
(run / "run.json").write_text(json.dumps({"id": os.getpid(), "place": os.getcwd(), "weight": weights[1]}))
shutil.rmtree(checkpoints)
print(json.dumps({"run": str(run.resolve()), "seconds": {"total": time.time()}}))
"""
ADAPT = Command("adapt", ("adapt", "--json"), makes="run", resume=("adapt", "--resume", "--json"))
TINY = Case((ADAPT, Command("eval", ("eval", "--json"))))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cases of the package above, and nothing asked about the machine, which takes seconds."""
    machine = {"cpu": "one", "cores": 2, "packages": {"torch": "2.9"}}
    for module in (golden, program):
        monkeypatch.setattr(module, "describe_machine", lambda: machine)
    monkeypatch.setattr(golden, "cases", lambda images: {"first": TINY, "second": TINY})
    monkeypatch.chdir(tmp_path)


def package(folder: Path, **changes: str) -> str:
    text = ZOO
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (folder / "zoo").mkdir(parents=True)
    (folder / "zoo" / "__init__.py").write_text("")
    (folder / "zoo" / "__main__.py").write_text(text)
    return str(folder)


def measured(before: str, after: str, *more: str) -> dict:
    parser = argparse.ArgumentParser()
    golden.add_arguments(parser)
    return golden.measure(parser.parse_args(["--before", before, "--after", after, *more]))


def places(row: dict) -> list[str]:
    return [one["where"] for one in row["differences"]]


# --- the whole of it, with the package above ---


def test_a_revision_is_the_same_as_itself_also_when_it_was_killed(tmp_path, monkeypatch, capsys):
    old = package(tmp_path / "old")
    record = measured(old, old, "--kill", "--read")
    assert record["failed"] is False
    for row, name in zip(record["cases"].values(), ("SIGKILL", "SIGTERM"), strict=True):
        assert row["failed"] is None and row["differences"] == [] and row["values"] > 4 * 12
        assert row["killed"] == f"zoo adapt by {name} at step 5 of 12"
        assert row["seconds"].keys() == {"before", "after", "killed", "read"}
    assert "2 of 2 cases are the same to the bit\n" in capsys.readouterr().err
    # What is finished is not done again, and is there to look at.
    monkeypatch.setattr(golden, "run", lambda *_, **__: pytest.fail("it was done already"))
    assert measured(old, old, "--kill", "--read") == record
    assert (tmp_path / "runs" / "golden" / "killed" / "second" / "place" / "run" / "model.safetensors").is_file()


def test_a_changed_rate_is_found_and_shown(tmp_path, monkeypatch, capsys):
    old, new = package(tmp_path / "old"), package(tmp_path / "new", rate=("RATE = 0.1", "RATE = 0.125"))
    words = ["golden", "--before", old, "--after", new, "--only", "first", "--out", "said.json"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "  run/metrics.jsonl: 0.weight: 0.1 -> 0.125\n" in told
    assert "0 of 1 cases are the same to the bit; not first\n" in told
    row = json.loads(Path("said.json").read_text())["cases"]["first"]
    where = places(row)
    assert row["different"] == len(where) == 12 + 12 + 3  # metrics, checkpoints, the record, the model, what eval says
    assert "run/checkpoints/step-07.safetensors: weight" in where and "run/run.json: weight" in where
    (model,) = (one for one in row["differences"] if one["where"] == "run/model.safetensors: weight")
    assert model["after"] == "float64 (2,)[1] = 1.5 (1 of 2 differ)"


def test_a_note_in_other_words_is_shown_and_no_difference(tmp_path, capsys):
    notes = '"place": os.getcwd()'
    old = package(tmp_path / "old", notes=(notes, f'{notes}, "plan": {{"notes": ["few images"]}}'))
    new = package(tmp_path / "new", notes=(notes, f'{notes}, "plan": {{"notes": ["not many images"]}}'))
    record = measured(old, new, "--only", "first")
    assert record["failed"] is False
    told = capsys.readouterr().err
    assert "0 differ, 1 notes are worded differently" in told
    assert "  run/run.json: plan.notes.0: few images -> not many images\n" in told


def test_a_run_that_is_resumed_otherwise_is_found(tmp_path):
    old = package(tmp_path / "old")
    new = package(tmp_path / "new", resumed=("if saved else [0.0, 0.0]", "if saved and 0 else [0.0, 0.0]"))
    row = measured(old, new, "--only", "second", "--kill")["cases"]["second"]
    assert row["failed"] is None and row["killed"]
    assert "killed and resumed, run/model.safetensors: weight" in places(row)
    assert all(where.startswith("killed and resumed, ") for where in places(row))


def test_an_old_run_that_is_read_otherwise_is_found(tmp_path):
    old, new = package(tmp_path / "old"), package(tmp_path / "new", read=("[-16:])[1]}", "[-16:])[0]}"))
    row = measured(old, new, "--only", "first", "--read")["cases"]["first"]
    assert places(row) == ["eval.out: weight", "by the newer, eval.out: weight"]


def test_a_command_that_fails_ends_its_case_alone(tmp_path, capsys):
    old, new = (
        package(tmp_path / "old"),
        package(tmp_path / "new", fault=("time.sleep(0.1)", "raise SystemExit('no more')")),
    )
    record = measured(old, new)
    assert record["failed"] is True and list(record["cases"]) == ["first", "second"]
    for row in record["cases"].values():
        assert row["failed"].startswith(f"zoo adapt --json at {new} ended with 1, not 0:")
        assert row["failed"].endswith("no more")
    assert "no more" in capsys.readouterr().err


def test_a_run_that_ends_before_it_can_be_killed_is_said(tmp_path):
    old = package(tmp_path / "old")
    folder, found = Folder(tmp_path / "case"), golden_runs.tree(old, tmp_path / "trees")
    folder.empty()
    with pytest.raises(Failed, match="ended before it could be killed at step 99"):
        golden_runs.run(ADAPT, found, folder, golden_runs.Kill(golden.SIGNALS[0], 99))


# --- revisions ---


def test_a_tree_without_zoo_is_refused_whatever_is_installed(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"zoo of .*empty would be imported from .*, not from "):
        measured(str(tmp_path / "empty"), str(tmp_path / "empty"))


def test_a_tree_whose_plugins_do_not_work_is_refused(tmp_path):
    broken = package(tmp_path / "broken", status=('"ok"', '"error"'))
    with pytest.raises(SystemExit, match=r"broken cannot use its plugins: fake"):
        measured(broken, broken)


def test_a_checkout_is_copied_as_it_is_and_a_revision_as_it_was(tmp_path, monkeypatch):
    checkout, trees = tmp_path / "checkout", tmp_path / "trees"
    package(checkout)
    git = ["git", "-C", str(checkout), "-c", "user.name=me", "-c", "user.email=me@here"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    edited = checkout / "zoo" / "__init__.py"
    edited.write_text("EDITED = True\n")
    monkeypatch.setattr(golden_runs, "ROOT", checkout)
    then, now = golden_runs.tree("v1", trees), golden_runs.tree(str(checkout), trees)
    assert (then.path / "zoo" / "__init__.py").read_text() == ""
    edited.write_text("EDITED = False\n")
    assert (now.path / "zoo" / "__init__.py").read_text() == "EDITED = True\n"
    later = golden_runs.tree(str(checkout), trees)
    assert len({then.id, now.id, later.id}) == 3 and now.path != later.path
    with pytest.raises(SystemExit, match="git rev-parse"):
        golden_runs.tree("no-such-revision", trees)


# --- comparing ---


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a case may leave behind."""
    folder = tmp_path / "before"
    (folder / "run").mkdir(parents=True)
    save_file({"a": torch.arange(4.0), "b": torch.tensor([1, 2])}, folder / "run" / "model.safetensors", {"k": "v"})
    (folder / "run" / "run.json").write_text(
        json.dumps({"id": "x", "n": 1, "plan": {"seconds": 2.0, "lr": [0.0, 0.5]}, "place": f"{folder}/run"})
    )
    (folder / "run" / "metrics.jsonl").write_text('{"loss": 1.5, "seconds": 1}\n{"loss": NaN, "seconds": 2}\n')
    (folder / "run" / "report.html").write_text("words")
    (folder / "table.csv").write_text("member,train_seconds,n\none,1.5,3\n")
    (folder / "plan.out").write_text('{"phases": []}')
    return folder


def copied(left: Path) -> Path:
    return Path(shutil.copytree(left, left.with_name("after")))


def compared(before: Path, after: Path) -> list[tuple[str, object, object]]:
    one, other = (read(folder, {str(folder): "<place>"}) for folder in (before, after))
    return [(each["where"], each["before"], each["after"]) for each in differences(one, other)]


def test_times_identifiers_and_the_folder_itself_are_no_difference(left):
    after = copied(left)
    record = (after / "run" / "run.json").read_text().replace('"x"', '"y"').replace("2.0", "3.0")
    (after / "run" / "run.json").write_text(record.replace(str(left), str(after)))
    (after / "run" / "metrics.jsonl").write_text('{"loss": 1.5, "seconds": 7}\n{"loss": NaN, "seconds": 8}\n')
    (after / "run" / "report.html").write_text("other words")
    (after / "table.csv").write_text("member,train_seconds,n\none,9.5,3\n")
    assert compared(left, after) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "difference"),
    [
        ("run/run.json", '"n": 1', '"n": 1.0', ("run/run.json: n", 1, 1.0)),
        ("run/run.json", "[0.0, 0.5]", "[-0.0, 0.5]", ("run/run.json: plan.lr.0", 0.0, -0.0)),
        ("run/run.json", "[0.0, 0.5]", "[0.0]", ("run/run.json: plan.lr.1", 0.5, "absent")),
        ("run/run.json", '"n": 1', '"n": 1, "m": null', ("run/run.json: m", "absent", None)),
        ("run/run.json", "/run", "/elsewhere", ("run/run.json: place", "<place>/run", "<place>/elsewhere")),
        ("run/metrics.jsonl", "1.5", "1.25", ("run/metrics.jsonl: 0.loss", 1.5, 1.25)),
        ("table.csv", "3", "4", ("table.csv: 0.n", "3", "4")),
        ("plan.out", "[]", "{}", ("plan.out: phases", [], {})),
    ],
)
def test_a_value_that_differs_is_named_with_both_values(left, name, old, new, difference):
    after = copied(left)
    text = (after / name).read_text().replace(str(left), str(after))
    (after / "run" / "run.json").write_text((left / "run" / "run.json").read_text().replace(str(left), str(after)))
    assert old in text
    (after / name).write_text(text.replace(old, new, 1) if "/" not in old else text.replace(f'{old}"', f'{new}"'))
    assert [(where, repr(one), repr(other)) for where, one, other in compared(left, after)] == [
        (difference[0], repr(difference[1]), repr(difference[2]))
    ]


@pytest.mark.parametrize(
    ("tensors", "metadata", "difference"),
    [
        (
            {"a": torch.tensor([0.0, 1.0, 2.0, 3.0000002])},
            {"k": "v"},
            ("a", "float32 (4,)[3] = 3.0 (1 of 4 differ)", "float32 (4,)[3] = 3.000000238418579 (1 of 4 differ)"),
        ),
        ({"a": torch.tensor([-0.0, 1.0, 2.0, 3.0])}, {"k": "v"},
         ("a", "float32 (4,)[0] = 0.0 (1 of 4 differ)", "float32 (4,)[0] = -0.0 (1 of 4 differ)")),
        ({"a": torch.arange(4.0).double()}, {"k": "v"}, ("a", "float32 (4,)", "float64 (4,)")),
        ({"a": torch.arange(4.0).view(2, 2)}, {"k": "v"}, ("a", "float32 (4,)", "float32 (2, 2)")),
        ({"a": torch.arange(4.0), "c": torch.ones(1)}, {"k": "v"}, ("c", "absent", "float32 (1,)")),
        ({"a": torch.arange(4.0)}, {"k": "w"}, ("metadata.k", "v", "w")),
    ],
)  # fmt: skip
def test_tensors_are_compared_to_the_bit(left, tensors, metadata, difference):
    after = copied(left)
    (after / "run" / "run.json").write_text((left / "run" / "run.json").read_text().replace(str(left), str(after)))
    save_file(tensors | {"b": torch.tensor([1, 2])}, after / "run" / "model.safetensors", metadata)
    where, *both = difference
    assert compared(left, after) == [(f"run/model.safetensors: {where}", *both)]


def test_a_file_that_one_has_is_one_difference(left):
    after = copied(left)
    (after / "run" / "run.json").unlink()
    (after / "run" / "more.html").write_text("")
    assert compared(left, after) == [("run/more.html", "absent", "there"), ("run/run.json", "there", "absent")]


def test_checkpoints_are_written_down_with_a_digest_for_each_tensor(tmp_path):
    def written(weight: float, waited: float) -> dict:
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        (tmp_path / "kept").mkdir()
        optimizer = {"state": {0: {"step": torch.tensor(1.0), "mean": torch.full((3,), weight)}}}
        position = {"step": 1, "waited": waited, "seconds": waited}
        state = {"position": position, "average": None, "optimizer": optimizer}
        torch.save(state, tmp_path / "kept" / "step-1.pt")
        save_file({"a": torch.full((2,), weight)}, tmp_path / "kept" / "best.safetensors")
        write_checkpoints(tmp_path / "kept", tmp_path / "checkpoints.json")
        return read_checkpoints(tmp_path / "checkpoints.json")

    first = written(0.5, 1.0)
    assert first["step-1.pt"]["average"] is None and first["step-1.pt"]["position.step"] == 1
    assert differences(first, written(0.5, 2.0)) == []
    where = [one["where"] for one in differences(first, written(0.25, 1.0))]
    assert where == ["best.safetensors: a", "step-1.pt: optimizer.state.0.mean"]


def test_each_place_that_is_ignored_has_a_reason():
    patterns = [pattern for pattern, _ in golden_compare.IGNORED]
    assert len(patterns) == len(set(patterns))
    assert all(": " in pattern and reason for pattern, reason in golden_compare.IGNORED)


# --- what is done ---


def test_images_are_the_same_wherever_they_are_drawn(tmp_path):
    one, other = golden_images.make(tmp_path / "one"), golden_images.make(tmp_path / "other")
    names = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(names) > 250
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    means = {name: np.mean([np.asarray(Image.open(path)).mean() for path in (one / name).iterdir()])
             for name in ("more", "night")}  # fmt: skip
    assert means["night"] > 1.5 * means["more"], "the other domain looks like the first"
    made = (one / "answers.csv").stat().st_mtime_ns
    assert golden_images.make(tmp_path / "one") == one and (one / "answers.csv").stat().st_mtime_ns == made


def test_what_a_case_names_is_there_and_every_training_can_be_killed(tmp_path):
    images = golden_images.make(tmp_path)
    for name, case in cases(images).items():
        words = [word for command in case.commands for word in command.words]
        places = {word.partition("=")[2].partition(":")[0] or word for word in words if str(images) in word}
        assert all(Path(place).exists() for place in places), name
        assert case.killed is not None or name == "rank"
        assert all("--json" in command.words for command in case.commands)
