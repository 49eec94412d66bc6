"""The whole way once, with the sides that need no package beyond the project's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from benchmarks.tasks import TASKS
from tests.docs.pages import ROOT
from tests.pictures import COLOURS, make_images

PAGE = "<!-- measured: adapt-{} -->\nNot measured yet.\n<!-- end -->\n"


@pytest.fixture
def folders(tmp_path):
    """An archive of made-up images under a real one's name, and weights."""
    images = make_images(tmp_path / "images", {part: dict.fromkeys(list(COLOURS)[:4], 6) for part in ("train", "test")})
    with zipfile.ZipFile(tmp_path / "cifar10.zip", "w") as file:
        for path in images.rglob("*.png"):
            file.write(path, path.relative_to(images).as_posix())
    shutil.copy(
        ROOT / "plugins/adaptzoo-resnet/adaptzoo_resnet/weights/resnet_nano.safetensors",
        tmp_path / TASKS["cifar10-probe"].weights,
    )
    return ["--data", str(tmp_path), "--weights", str(tmp_path)]


@pytest.mark.heavy
@pytest.mark.parametrize(("peer", "work"), [("timm", "cifar10-finetune"), ("torchvision-tutorial", "cifar10-probe")])
def test_zoo_and_a_peer_are_run_and_published(peer, work, folders, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(peer))
    command = [sys.executable, "-m", "benchmarks", "adapt", "--peer", peer, "--docs", str(page),
               "--results", str(tmp_path / "runs.jsonl")]  # fmt: skip
    once = [*command, *folders, "--work", work, "--seeds", "1", "--epochs", "2",
            "--zoo", "epochs=2,probe_epochs=1" if work.endswith("finetune") else "epochs=2"]  # fmt: skip
    done = subprocess.run(once, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["key"]["side"]: row for row in json.loads(done.stdout)["rows"]}
    ours, theirs = rows["zoo"], rows[peer]
    assert ours["samples"] == theirs["samples"]
    assert ours["n"] == theirs["n"] == 24
    assert ours["trained_on"] + ours["chosen_on"] == theirs["trained_on"] == 24
    assert [len(row["points"]) for row in (ours, theirs)] == [3 if work.endswith("finetune") else 2, 2]
    for row in (ours, theirs):
        seconds = row["seconds"]
        assert 0 < row["marks"]["training"] < row["points"][0]["seconds"] <= row["points"][-1]["seconds"]
        assert row["points"][-1]["seconds"] <= row["marks"]["trained"] < seconds["whole"]
        assert seconds["off_the_clock"] > 0
        assert row["memory_mb"] > row["anonymous_mb"] > 100
    assert (tmp_path / f"benchmarks-{peer}.png").is_file()
    published = page.read_text()
    assert f"| {work}, " in published
    # Nothing is run again, and the same page comes out.
    again = subprocess.run([*command, "--only-table"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert page.read_text() == published
    assert str(tmp_path) not in (tmp_path / "runs.jsonl").read_text()
