"""Members of a comparison for real: what a job answers, in this process and in one of its own."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

import zoo
from zoo.base.cache import features_folder
from zoo.errors import TrainingError, ZooError
from zoo.events import Progress
from zoo.studies.compare import child, compare, inference_cost, process
from zoo.studies.compare.comparison_folder import Comparison

RECIPE = zoo.Recipe(
    strategy="probe", train_per_class=2, image_size=32, device="cpu", threads=1, precision="fp32", workers=0
)
JOB = {"backbone": "resnet_nano", "dataset": "digits", "recipe": RECIPE.record(), "budget": None}


def test_a_plan_is_cut_to_the_budget_and_says_what_using_it_costs():
    answer = child.plan({**JOB, "budget": "3steps"}, lambda event: None)
    assert answer["epochs"] == answer["steps"] == 3 and answer["recipe"]["epochs"] == 3
    assert answer["params"] == 373_658 and answer["input"] == [3, 32, 32]
    assert answer["seconds"] > 0 and answer["memory_bytes"] > 0
    json.dumps(answer)
    with pytest.raises(ZooError, match=r"does not fit into 0\.001s"):
        child.plan({**JOB, "budget": "0.001s"}, lambda event: None)


def test_a_run_says_which_images_it_names_rightly(tmp_path):
    recipe = {**RECIPE.record(), "epochs": 1}
    job = {**JOB, "recipe": recipe, "out": str(tmp_path / "run"), "resume": False}
    answer = child.adapt(job, lambda event: None)
    record = zoo.Run(tmp_path / "run").finished_record()
    right = np.array([flag == "1" for flag in answer["right"]])
    assert len(right) == answer["n"] == record["result"]["n"]
    assert right.mean() == pytest.approx(record["result"]["accuracy"]) == answer["accuracy"]
    assert answer["fingerprint"] == record["dataset"]["fingerprint"]
    assert answer["memory_bytes"] > 10**8 and answer["images_per_second"] > 0
    again = child.adapt({**job, "resume": True}, lambda event: None)
    assert again["right"] == answer["right"], "a run that is finished is only measured"
    assert again["memory_bytes"] is None, "this process did not train it"


def test_no_run_finds_the_activations_of_another(tmp_path):
    """Two seeds with one cut of the images freeze the same network: the second would read what the first computed."""
    recipe = {**RECIPE.record(), "epochs": 1, "data_seed": 0, "cache": "on", "refit": "off", "recalibrate": "off"}
    comparison = Comparison(tmp_path)
    for seed in (0, 1):
        heard = []
        job = {**JOB, "task": "adapt", "recipe": recipe | {"seed": seed}, "out": str(tmp_path / f"run-{seed}"),
               "resume": False}  # fmt: skip
        compare._apart(comparison, child.do, job, heard.append)
        stages = {event.stage for event in heard if isinstance(event, Progress)}
        assert any(stage.startswith("computing activations") for stage in stages), seed
        assert not (comparison.work / "activations").exists()
    assert not features_folder().exists(), "nor does it leave any for others"


def test_flops_are_those_of_the_layers():
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.Flatten(),
                                  torch.nn.Linear(8 * 4 * 4, 5))  # fmt: skip
    assert inference_cost.flops(network, (3, 4, 4)) == 2 * (4 * 4 * 8 * 3 * 9) + 2 * (8 * 16 * 5)
    assert network.training, "it is left as it was"


def test_a_job_in_a_process_of_its_own_tells_what_happens_and_why_it_failed(tmp_path):
    heard = []
    job = {"task": "plan", **JOB, "backbone": "no_such_backbone", "activations": str(tmp_path)}
    with pytest.raises(ZooError) as caught:
        process.carry_out(job, heard.append)
    assert caught.value.what == "no installed plugin has a backbone named 'no_such_backbone'"
    assert caught.value.fix


def test_a_process_that_dies_is_explained(monkeypatch):
    class Killed:
        """A process that is ended from outside before it says anything."""

        def __new__(cls, command, **options):
            import subprocess

            script = "import os, sys; sys.stderr.write('the last words'); sys.stderr.flush(); os.kill(os.getpid(), 9)"
            return subprocess._popen([command[0], "-c", script], **options)

    import subprocess

    monkeypatch.setattr(subprocess, "_popen", subprocess.Popen, raising=False)
    monkeypatch.setattr(subprocess, "Popen", Killed)
    with pytest.raises(TrainingError) as caught:
        process.carry_out({"task": "plan"}, lambda event: None)
    assert caught.value.what == "its process was ended by SIGKILL: most likely the system ran out of memory"
    assert caught.value.why == "the last words"
    assert process._death(-signal.SIGSEGV) == "its process was ended by SIGSEGV"


@pytest.mark.heavy
def test_a_comparison_from_beginning_to_end(tmp_path):
    heard = []
    recipe = zoo.Recipe(**{**{name: getattr(RECIPE, name) for name in ("train_per_class", "image_size")},
                           "device": "cpu", "threads": 1})  # fmt: skip
    found = zoo.compare(["resnet_nano", "resnet_nano=none"], "digits", recipe, seeds=2, budget="4steps",
                        out=tmp_path / "c", on_event=heard.append)  # fmt: skip
    assert found.finished and len(found.summary["rows"]) == 2 and len(found.summary["differences"]) == 1
    assert all(zoo.Run(path).finished for path in found.path.iterdir() if path.is_dir())
    assert len([path for path in found.path.iterdir() if path.is_dir()]) == 4
    assert any(isinstance(event, Progress) and "resnet_nano-none" in event.stage for event in heard)
    assert found.page.stat().st_size > 10_000
