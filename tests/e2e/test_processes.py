"""Two processes on one machine, started as a person would start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import make_images

ROOT = Path(__file__).resolve().parents[2]
CHOICES = {
    "strategy": "lp-ft",
    "probe-epochs": 1,
    "epochs": 6,
    "batch-size": 8,
    "accumulate": 2,
    "image-size": 32,
    "threads": 1,
    "precision": "fp32",
    "norm": "fixed",
    "augment": "light",
    "lr": 0.003,
    "balance": "weights",
    "ema": 0.8,
    "cache": "off",
}
RECIPE = ["resnet_nano", *(word for name, value in CHOICES.items() for word in (f"--{name}", str(value)))]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def launch(*words: str, processes: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["--module", "zoo", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)


def alone(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    split = {"amber": 13, "blue": 9, "green": 11, "red": 10}  # unequal, and nothing that two divides
    root = tmp_path_factory.mktemp("photos")
    return make_images(
        root / "photos", {"train": split, "val": dict.fromkeys(split, 3), "test": {"amber": 4, "red": 3}}
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    """The log's whole lines; none before there is one."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def assert_close(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The losses and accuracies of two logs differ by rounding alone."""
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("loss", "train_loss", "val_loss", "val_accuracy"):
            if mine.get(key) is not None:
                assert mine[key] == pytest.approx(other[key], rel=2e-3), (key, mine, other)


def test_two_processes_train_one_run_as_one_process_would(tmp_path: Path, photos: Path) -> None:
    shared = tmp_path / "runs" / "resnet_nano-photos"
    words = ["adapt", *RECIPE, "--dataset", str(photos), "--processes", "2", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "zoo", *words],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not (shared.is_dir() and len(metrics(shared)) > 3):
            time.sleep(0.02)
        process.terminate()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    assert json.loads(out)["error"]["fix"] == f"go on with it: zoo adapt --resume {shared}"
    assert err.count("loading torch and timm") == 1 and "Traceback" not in err
    both = alone("adapt", "--resume", str(shared), "--json", cwd=tmp_path)  # by two processes again
    assert both.returncode == 0, both.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["resnet_nano-photos"], "one run, written once"
    document = json.loads(both.stdout)
    assert document["run"] == str(shared)
    assert document["result"]["n"] == 7 and sum(row["n"] for row in document["result"]["classes"]) == 7
    single = tmp_path / "single"
    one = alone("adapt", *RECIPE, "--dataset", str(photos), "--json", "--out", str(single), cwd=tmp_path)
    assert one.returncode == 0, one.stderr

    ours, theirs = metrics(shared), metrics(single)
    assert [(line["event"], line["phase"], line["epoch"], line["step"]) for line in ours] == [
        (line["event"], line["phase"], line["epoch"], line["step"]) for line in theirs
    ]
    assert_close(ours, theirs)
    alike = json.loads(one.stdout)["result"]
    assert document["result"]["accuracy"] == alike["accuracy"]
    assert document["result"]["loss"] == pytest.approx(alike["loss"], rel=2e-3)
    record = json.loads((shared / "run.json").read_text())
    assert record["resolved"]["processes"] == 2 and record["status"] == "finished"
    assert not (shared / "checkpoints").exists()

    # Scored by two processes, which accelerate starts: every image once, though two do not divide them.
    scored = launch("eval", str(shared), "--json", processes=2, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    found = json.loads(scored.stdout)
    assert found["n"] == 7 and found["accuracy"] == document["result"]["accuracy"]


@pytest.mark.heavy
@pytest.mark.parametrize("place", ["file", "memory"])
def test_two_processes_train_from_kept_activations_as_one_would(tmp_path: Path, photos: Path, place: str) -> None:
    words = ["adapt", *RECIPE, "--dataset", str(photos), "--json", "--strategy", "partial", "--cache", "on",
             "--cache-views", "2", "--cache-ram-gb", "0" if place == "file" else "2"]  # fmt: skip
    single = alone(*words, "--out", str(tmp_path / "single"), cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    cleared = alone("cache", "clear", "--json", cwd=tmp_path)
    kinds = [entry["kind"] for entry in json.loads(cleared.stdout)]
    assert kinds.count("activations") == 3, "two views, and the validation images"
    both = launch(*words, "--out", str(tmp_path / "both"), processes=2, cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("from features cached before") == 1
    ours, theirs = metrics(tmp_path / "both"), metrics(tmp_path / "single")
    assert_close(ours, theirs)


@pytest.mark.heavy
def test_two_processes_train_several_tasks_as_one_would(tmp_path: Path, photos: Path) -> None:
    """Though not all images answer all of them, and not as many in each part of a batch."""
    lines = ["path,colour,size,level,split"]
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        place = path.relative_to(photos.parent)
        colour = place.parts[2] if number % 3 else ""
        size = str(number % 7) if number % 8 < 5 else ""
        lines.append(f"{place},{colour},{size},{('low', 'middle', 'high')[number % 4 % 3]},{place.parts[1]}")
    table = photos.parent / "several.csv"
    table.write_text("\n".join(lines) + "\n")
    tasks = [f"colour={table}:colour", f"size={table}:size:regression", f"level={table}:level:low<middle<high"]
    kept = (word for name, value in CHOICES.items() if name != "balance" for word in (f"--{name}", str(value)))
    words = ["adapt", "resnet_nano", *kept, "--json", "--strategy", "finetune", "--epochs", "2"]
    words += ["--task-weighting", "uncertainty"]
    words += [word for task in tasks for word in ("--task", task)]
    single = alone(*words, "--out", str(tmp_path / "single"), cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    both = launch(*words, "--out", str(tmp_path / "both"), processes=2, cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    ours, theirs = metrics(tmp_path / "both"), metrics(tmp_path / "single")
    assert_close(ours, theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.get("parts", {}) == pytest.approx(other.get("parts", {}), rel=5e-3)


@pytest.mark.heavy
def test_two_processes_align_two_domains_as_one_would(tmp_path: Path, photos: Path) -> None:
    target = make_images(tmp_path / "target", {"train": dict.fromkeys(("amber", "blue", "green", "red"), 12)})
    words = ["adapt", *RECIPE, "--dataset", str(photos), "--json", "--strategy", "finetune", "--epochs", "2",
             "--target", str(target), "--align", "dann", "--semi", "flexmatch", "--unlabelled-ratio", "1"]  # fmt: skip
    single = alone(*words, "--out", str(tmp_path / "single"), cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    both = launch(*words, "--out", str(tmp_path / "both"), processes=2, cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    ours, theirs = metrics(tmp_path / "both"), metrics(tmp_path / "single")
    assert_close(ours, theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.get("parts", {}) == pytest.approx(other.get("parts", {}), rel=2e-2, abs=0.02)


def test_a_batch_that_two_processes_cannot_share_is_said_once(tmp_path: Path, photos: Path) -> None:
    words = ("adapt", "resnet_nano", "--dataset", str(photos), "--batch-size", "7")
    failed = launch(*words, processes=2, cwd=tmp_path)
    assert failed.returncode != 0
    assert failed.stderr.count("a batch of 7 cannot be shared by 2 processes") == 1
    assert "--batch-size 8" in failed.stderr and "bug in zoo" not in failed.stderr
    assert not (tmp_path / "runs").exists()
