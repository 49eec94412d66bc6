"""Comparisons whose runs are made up: what is repeated, what goes on, and what is said. Real ones: test_child.py."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.runs.report.html_reader import read
from zoo.errors import RecipeError, RunError, TrainingError, TrainingInterrupted
from zoo.models import lookup
from zoo.models.spec import Weights
from zoo.recipes.budget import Budget
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run
from zoo.studies.backbone_list import Entrant
from zoo.studies.compare import compare, origin
from zoo.studies.compare.grid import label_members

SHARES = {"resnet_nano-probe": 0.6, "resnet_nano-lp-ft": 0.9, "test_vit-probe": 0.58, "test_vit-lp-ft": 0.3}


class Work:
    """Answers jobs as `zoo.studies.compare.child` would, and remembers them."""

    def __init__(self, faults=()):
        self.faults = dict(faults)  # job's name -> what it raises
        self.names: list[str] = []
        self.jobs: dict[str, dict] = {}

    def __call__(self, job, emit):
        short, strategy = job["backbone"].rpartition("/")[2], job["recipe"]["strategy"]
        member = f"{short}-{strategy}"
        name = f"plan {member}" if job["task"] == "plan" else f"{member}-{job['recipe']['seed']}"
        self.names.append(name)
        self.jobs[name] = job
        if name in self.faults:
            raise self.faults[name]
        if job["task"] == "plan":
            return {"recipe": job["recipe"] | {"epochs": 7}, "epochs": 7, "steps": 70, "seconds": 9.0,
                    "memory_bytes": 10**8, "params": 10**6 if short == "resnet_nano" else 2 * 10**6,
                    "flops": 10**9, "input": [3, 64, 64], "notes": []}  # fmt: skip
        seed = job["recipe"]["seed"]
        right = np.random.default_rng([seed, *member.encode()]).permutation(200) < 200 * SHARES[member]
        Run(Path(job["out"])).path.mkdir(exist_ok=True)
        return {"accuracy": float(right.mean()), "loss": 1.0, "n": 200, "split": "test", "selected_on": "val",
                "seconds": {"setup": 1.0, "train": 5.0 + len(member), "total": 20.0}, "environment": {"cpu": "a cpu"},
                "fingerprint": "f", "images_per_second": 100.0, "right": "".join("01"[int(v)] for v in right),
                "ids": "same images", "memory_bytes": 5 * 10**8}  # fmt: skip


def start(tmp_path, work, **choices):
    asked = {"strategies": ("probe", "lp-ft"), "seeds": 2, "budget": None, "out": tmp_path / "c", **choices}
    notes = []
    backbones = asked.pop("backbones", ["resnet_nano", "timm/test_vit"])
    recipe = asked.pop("recipe", Recipe(train_per_class=4))
    try:
        found = compare.start(backbones, "digits", recipe, **asked, emit=notes.append, work=work)
    finally:
        start.notes = [event.text for event in notes if hasattr(event, "text")]
    return found


def test_everything_is_planned_before_anything_trains_and_then_run_seed_by_seed(tmp_path):
    work = Work()
    found = start(tmp_path, work)
    members = ["resnet_nano-probe", "resnet_nano-lp-ft", "test_vit-probe", "test_vit-lp-ft"]
    assert work.names == [f"plan {name}" for name in members] + [
        f"{name}-{seed}" for seed in (0, 1) for name in members
    ]
    assert found.finished
    assert work.jobs["test_vit-probe-1"]["recipe"]["epochs"] == 7, "every seed trains as it was planned"
    assert work.jobs["test_vit-probe-1"]["out"] == str(found.path / "test_vit-probe-1")
    assert any(note.startswith("4 members, 2 seed(s): about 1.2 min") for note in start.notes)


def test_the_summary_the_table_and_the_page_say_the_same(tmp_path):
    found = start(tmp_path, Work(), budget=Budget(seconds=10))
    rows = found.summary["rows"]
    assert [row["member"] for row in rows] == [
        "resnet_nano-lp-ft",
        "resnet_nano-probe",
        "test_vit-probe",
        "test_vit-lp-ft",
    ]
    best = rows[0]
    assert best["accuracy"] == pytest.approx(0.9) and best["interval"][0] < 0.9 < best["interval"][1]
    assert best["accuracies"] == {"0": 0.9, "1": 0.9} and best["memory_bytes"] == 5 * 10**8
    assert "params" in best["pareto"] and rows[3]["pareto"] == []
    verdicts = {(pair["first"], pair["second"]): pair["within_noise"] for pair in found.summary["differences"]}
    assert len(verdicts) == 6
    assert verdicts["resnet_nano-lp-ft", "resnet_nano-probe"] is False
    assert verdicts["resnet_nano-probe", "test_vit-probe"] is True
    assert {pair["test"] for pair in found.summary["differences"]} == {
        "paired t test over images and 2 seeds, both random"
    }
    assert any("longer than the budget" in note and "test_vit-lp-ft" in note for note in found.summary["notes"])
    with found.table.open() as file:
        table = list(csv.DictReader(file))
    assert [line["member"] for line in table] == [row["member"] for row in rows]
    assert (table[0]["accuracy"], table[0]["seeds"], table[0]["params"]) == ("0.9", "2", "1000000")
    page = read(found.page)
    cells = page.cells("members")
    assert [line[0] for line in cells[1:]] == [row["member"] for row in rows]
    assert cells[1][2] == "90.0%" and cells[1][5] == "1 M"
    assert "within noise" in page.words("differences") and "a difference" in page.words("differences")
    labels = {value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")}
    assert {"Accuracy against seconds of training", "Accuracy against parameters"} <= labels
    assert not [value for _, name, value in page.attributes if name in ("src", "href") and value.startswith("http")]


def test_a_member_that_fails_is_named_and_the_others_go_on(tmp_path):
    died = TrainingError("its process was ended by SIGKILL: most likely the system ran out of memory", why="Killed")
    misfit = RecipeError("timm/test_vit does not fit into 1s", why="one epoch takes about 4 s")
    work = Work({"resnet_nano-lp-ft-0": died, "plan test_vit-probe": misfit})
    found = start(tmp_path, work)
    assert found.finished
    assert [row["member"] for row in found.summary["rows"]] == ["resnet_nano-probe", "test_vit-lp-ft"]
    failed = {one["member"]: (one["seed"], one["what"], one["why"]) for one in found.summary["failed"]}
    assert failed == {
        "resnet_nano-lp-ft": ("0", died.what, "Killed"),
        "test_vit-probe": (None, misfit.what, misfit.why),
    }
    assert "resnet_nano-lp-ft-1" not in work.names, "its other seed would most likely fail too"
    assert f"resnet_nano-lp-ft-0 failed: {died.what} (Killed)" in start.notes
    assert "SIGKILL" in read(found.page).words("failed")


def test_what_failed_is_tried_again_and_what_is_finished_is_not(tmp_path):
    found = start(
        tmp_path, Work({"resnet_nano-lp-ft-0": TrainingError("no"), "plan test_vit-probe": TrainingError("no")})
    )
    work = Work()
    compare.go_on(found.path, lambda event: None, work)
    assert work.names == ["plan test_vit-probe", "resnet_nano-lp-ft-0", "test_vit-probe-0", "resnet_nano-lp-ft-1",
                          "test_vit-probe-1"]  # fmt: skip
    assert found.summary["failed"] == [] and len(found.summary["rows"]) == 4
    compare.go_on(found.path, lambda event: None, work)
    assert len(work.names) == 5, "nothing was left to do"


def test_a_stopped_comparison_keeps_what_is_finished_and_its_run_goes_on(tmp_path):
    stop = TrainingInterrupted("stopped", signal_number=15)
    with pytest.raises(TrainingInterrupted, match="the comparison was stopped") as caught:
        start(tmp_path, Work({"test_vit-probe-0": stop}))
    assert caught.value.signal_number == 15
    assert caught.value.fix == f"go on with it: zoo compare --resume {tmp_path / 'c'}"
    comparison = compare.Comparison(tmp_path / "c")
    assert comparison.record["status"] == "interrupted" and len(comparison.summary["rows"]) == 2
    assert "not finished: interrupted" in " ".join(read(comparison.page).text[""].split())
    stopped = Run(comparison.path / "test_vit-probe-0")
    stopped.checkpoints.mkdir(parents=True)
    (stopped.checkpoints / "step-000000001.pt").touch()
    stopped.write_record({"schema": 1, "status": "interrupted"})
    broken = Run(comparison.path / "test_vit-lp-ft-0")
    broken.path.mkdir()
    (broken.path / "half.safetensors").touch()
    work = Work()
    compare.go_on(comparison.path, lambda event: None, work)
    assert work.names[0] == "test_vit-probe-0" and work.jobs["test_vit-probe-0"]["resume"] is True
    assert work.jobs["test_vit-lp-ft-0"]["resume"] is False and not (broken.path / "half.safetensors").exists()
    assert comparison.finished


def test_a_folder_is_worked_on_by_one_comparison_at_a_time(tmp_path):
    seen = []

    class Nosy(Work):
        def __call__(self, job, emit):
            if not seen:
                comparison = compare.Comparison(tmp_path / "c")
                assert Path(job["activations"]).parent == comparison.work and comparison.work.is_dir()
                with pytest.raises(RunError, match="is in use") as caught:
                    compare.go_on(comparison.path, lambda event: None, Work())
                seen.append(caught.value)
            return super().__call__(job, emit)

    found = start(tmp_path, Nosy())
    assert found.finished and not found.work.exists()
    assert f"process {os.getpid()} on " in seen[0].why


def test_when_nothing_could_be_run_it_says_why(tmp_path):
    work = Work({f"plan {name}": TrainingError("it cannot be built", why="a reason") for name in SHARES})
    with pytest.raises(
        RunError, match="no member of the comparison could be run; resnet_nano-probe: it cannot"
    ) as caught:
        start(tmp_path, work)
    assert caught.value.why == "a reason"


def test_one_seed_is_tested_by_mcnemar_and_says_what_it_lacks(tmp_path):
    found = start(tmp_path, Work(), seeds=1)
    assert {pair["test"] for pair in found.summary["differences"]} == {"exact McNemar test, one seed"}
    assert any("nothing about chance in training" in note for note in found.summary["notes"])


def test_a_file_of_weights_goes_by_its_name():
    facts = {"source": "file", "license": None, "origin": str(Path("/somewhere/deep/mine.safetensors"))}
    assert origin.words(facts, "") == "deep/mine.safetensors (file)"


def weights(name: str, source: str = "timm", license: str | None = None, origin: str | None = None) -> dict:
    return {"name": name, "source": source, "license": license, "origin": origin or name}


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"resnet_nano": weights("tv_in1k"), "test_vit": weights("tv_in1k", license="mit")}, None),
        ({"resnet_nano": weights("a", "file", origin="tiny, after random weights"),
          "test_vit": weights("b", "file", origin="tiny, after random weights")}, None),
        ({"resnet_nano": weights("tiny_imagenet", "file"), "test_vit": weights("r160_in1k", license="apache-2.0")},
         "tiny_imagenet (file); r160_in1k (timm, apache-2.0)"),
    ],
    ids=["one tag", "runs on one data set", "two trainings"],
)  # fmt: skip
def test_the_weights_are_named_and_the_note_goes_by_where_they_come_from(tmp_path, starts, said):
    class Told(Work):
        def __call__(self, job, emit):
            answer = super().__call__(job, emit)
            short = job["backbone"].rpartition("/")[2]
            return answer | ({"weights": starts[short]} if job["task"] == "plan" else {})

    found = start(tmp_path, Told(), strategies=("probe",), seeds=1)
    about = [note for note in found.summary["notes"] if "different pretraining" in note]
    assert len(about) == (said is not None) and (said is None or said in about[0])
    (row,) = [row for row in found.summary["rows"] if row["backbone"] == "timm/test_vit"]
    facts = starts["test_vit"]
    assert row["starts_from"].startswith(f"{facts['origin']} ({facts['source']}")
    with found.table.open() as file:
        (line,) = [line for line in csv.DictReader(file) if line["backbone"] == "timm/test_vit"]
    kept = [line[f"weights_{name}"] for name in ("name", "source", "license", "origin")]
    assert kept == [facts["name"], facts["source"], facts["license"] or "", facts["origin"]]
    assert row["starts_from"] in {cells[1] for cells in read(found.page).cells("members")}


def test_a_run_says_what_the_weights_in_it_were_trained_on(tmp_path):
    spec = lookup.get("resnet_nano")
    (embedded, *_) = spec.weights
    assert origin.of(spec, embedded)["origin"] == embedded.name
    assert origin.words(origin.of(spec, None), "none") == "random weights"
    file = tmp_path / "model.safetensors"
    own = Weights(name="mine", source="file", path=str(file))
    assert origin.of(spec, own)["origin"] == str(file)
    Run(tmp_path).write_record({"schema": 1, "dataset": {"name": "photos"}, "backbone": {"weights": None}})
    assert origin.of(spec, own)["origin"] == "photos, after random weights"
    assert origin.words(None, "default") == "default", "a comparison that was planned before weights were told"


def test_no_two_members_share_a_name(tmp_path):
    two = [Entrant("resnet/resnet18", "default"), Entrant("timm/resnet18", "default"),
           Entrant("resnet/resnet18", "/runs/a")]  # fmt: skip
    found = label_members(two, ["scratch", "probe"], Recipe())
    names = [member.name for member in found]
    assert len(set(names)) == len(names) == 5, "the two of one backbone are the same from scratch"
    assert [name for name in names if name.endswith("scratch")] == ["resnet18-default-1-scratch",
                                                                    "resnet18-default-2-scratch"]  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        ({"backbones": ["resnet_nano"], "strategies": ("lp-ft",)}, "there is nothing to compare"),
        ({"strategies": ("lp-ft", "magic")}, "there is no strategy magic"),
        ({"strategies": ("lp-ft", "lp-ft")}, "a strategy is named twice"),
        ({"backbones": ["resnet_nano", "resnet_nano"]}, "resnet/resnet_nano is named twice"),
        ({"recipe": Recipe(weights="none", strategy="lp-ft")}, "each backbone has weights of its own"),
        (
            {"backbones": ["resnet_nano", "resnet_nano=none"], "strategies": ("probe",)},
            "resnet_nano-none-probe cannot be compared: the recipe has an invalid choice",
        ),
        ({"seeds": 0}, "a comparison needs at least one seed, not 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(tmp_path, choices, what):
    with pytest.raises(RecipeError) as caught:
        start(tmp_path, Work(), **choices)
    assert caught.value.what.startswith(what)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_is_used_is_refused(tmp_path):
    found = start(tmp_path, Work())
    with pytest.raises(RunError, match="holds a comparison already") as caught:
        start(tmp_path, Work())
    assert f"zoo compare --resume {found.path}" in caught.value.fix
    shutil.rmtree(found.path)
    with pytest.raises(RunError, match="is not a comparison"):
        compare.go_on(found.path, lambda event: None, Work())
