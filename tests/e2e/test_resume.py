"""A run that was stopped goes on as if it had not been."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.pictures import four
from zoo.cli import main
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import CheckpointSaved, EpochDone, Event, Note, Progress, RunStarted, StepDone
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Recipe(  # everything on that carries something from step to step
    strategy="lp-ft",
    probe_epochs=2,
    epochs=3,
    lr=3e-3,
    batch_size=4,
    accumulate=2,
    image_size=32,
    ema=0.8,
    mixup=0.3,
    dropout=0.2,
    patience=2,
    augment="standard",
    threads=1,
    cache="off",  # the same whatever else the machine does; tests/adaptation stops runs that keep activations
    seed=11,
)


@pytest.fixture(scope="module", autouse=True)
def imports_need_no_collecting() -> Iterator[None]:
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four(tmp_path_factory.mktemp("resume") / "photos", 11)  # 7 batches of 4, so 4 steps a pass, the last uneven


@pytest.fixture(scope="module")
def whole(photos: Path) -> Run:
    """The run without an interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)
        return zoo.adapt("resnet_nano", str(photos), RECIPE, out=photos.parent / "whole")


def metrics(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_alike(run: Run, other: Run) -> None:
    mine, theirs = load_file(run.path / "model.safetensors"), load_file(other.path / "model.safetensors")
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert metrics(run) == metrics(other)
    assert run.record["result"] == other.record["result"] and run.record["best"] == other.record["best"]
    assert run.record["status"] == "finished" and not run.checkpoints.exists()


def stop_when(condition: Callable[[Event], bool]) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if condition(event):
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def step(number: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, StepDone) and event.step == number


def epoch(phase: str, number: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochDone) and (event.phase, event.epoch) == (phase, number)


@pytest.mark.parametrize(
    "where",
    [step(1), step(3), step(4), epoch("probe", 1), epoch("probe", 2), step(9), step(14), epoch("finetune", 3)],
    ids=[
        "first step", "within the probe", "last step of an epoch", "end of an epoch", "end of the probe",
        "first step of fine-tuning", "within fine-tuning", "end of training",
    ],
)  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, photos: Path, whole: Run, where: Callable[[Event], bool]
) -> None:
    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "run", on_event=stop_when(where))
    stopped = Run(tmp_path / "run")
    assert stopped.record["status"] == "interrupted"
    assert not (stopped.path / "model.safetensors").exists() and not (stopped.path / "config.json").exists()
    assert_alike(zoo.adapt(resume=stopped.path), whole)


def test_a_signal_while_the_model_is_measured_loses_nothing(tmp_path: Path, photos: Path, whole: Run) -> None:
    measuring = stop_when(lambda event: isinstance(event, Progress) and event.stage == "measuring the saved model")
    with pytest.raises(TrainingInterrupted) as caught:
        zoo.adapt("resnet_nano", str(photos), RECIPE, out=tmp_path / "run", on_event=measuring)
    steps = [line["step"] for line in map(json.loads, whole.metrics_path.read_text().splitlines())]
    assert caught.value.what == f"stopped at step {max(steps)}; the state is saved"
    assert not (tmp_path / "run" / "config.json").exists(), "a model that nobody measured"
    heard: list[Event] = []
    assert_alike(zoo.adapt(resume=tmp_path / "run", on_event=heard.append), whole)
    assert not [event for event in heard if isinstance(event, StepDone)]
    assert [event.step for event in heard if isinstance(event, RunStarted)] == [max(steps)]


def test_a_damaged_newest_state_is_passed_over(tmp_path: Path, photos: Path, whole: Run) -> None:
    often = replace(RECIPE, checkpoint_every="1 step")
    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(photos), often, out=tmp_path / "run", on_event=stop_when(step(14)))
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    heard: list[Event] = []
    assert_alike(zoo.adapt(resume=tmp_path / "run", on_event=heard.append), whole)
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert f"the checkpoint {newest.name} is damaged (its hash differs); using the one before" in notes
    assert next(event.step for event in heard if isinstance(event, StepDone)) == 14
    assert [event.step for event in heard if isinstance(event, RunStarted)] == [13], "as far as the state before"
    assert [event for event in heard if isinstance(event, CheckpointSaved)]


# --- from outside, as a person does it ---


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Without a terminal a shell's background job may come with SIGINT ignored, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < count:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped_says_how_to_go_on(tmp_path: Path, photos: Path, number: int, code: int) -> None:
    long = replace(RECIPE, epochs=12, patience=None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(long.to_yaml())
    words = ("adapt", "resnet_nano", "--dataset", str(photos), "--recipe", str(recipe), "--out", "a run", "--json")
    process = start(*words, cwd=tmp_path)
    wait_for_lines(tmp_path / "a run" / "metrics.jsonl", 15, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    folder = tmp_path / "a run"
    fault = json.loads(out)["error"]
    assert fault["what"].startswith("stopped at step ") and fault["what"].endswith("; the state is saved")
    assert fault["fix"] == f"go on with it: zoo adapt --resume '{folder}'" and "Traceback" not in err
    stopped = Run(folder)
    assert stopped.record["status"] == "interrupted"
    done = sum(line["event"] == "step" for line in metrics(stopped))
    assert 12 < done < 56
    if number == signal.SIGTERM:
        resumed = start("adapt", "--resume", "a run", "--json", cwd=tmp_path)
        out, err = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, err
        assert json.loads(out)["run"] == str(folder)
        assert_alike(stopped, zoo.adapt("resnet_nano", str(photos), long, out=tmp_path / "whole"))


# --- what is refused ---


@pytest.fixture(scope="module")
def stopped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    data = shutil.copytree(photos, folder / "photos")
    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(data), RECIPE, out=folder / "run", on_event=stop_when(step(6)))
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Run:
    """A stopped run of one's own, on shared data."""
    return Run(shutil.copytree(stopped / "run", tmp_path / "run"))


def test_other_data_is_refused(stopped: Path, copy: Run) -> None:
    extra = stopped / "photos" / "red" / "extra.png"
    shutil.copy(stopped / "photos" / "red" / "000.png", extra)
    try:
        with pytest.raises(RunError) as caught:
            zoo.adapt(resume=copy.path)
    finally:
        extra.unlink()
    assert caught.value.what == f"the data of {copy.path} changed since it started"
    assert "fingerprint" in caught.value.why and "training images: " in caught.value.why
    assert copy.record["status"] == "interrupted"


def test_other_weights_are_refused(stopped: Path, copy: Run) -> None:
    record = copy.record
    record["backbone"]["fingerprint"] = "0123456789abcdef"
    copy.write_record(record)
    with pytest.raises(RunError) as caught:
        zoo.adapt(resume=copy.path)
    assert caught.value.what == f"the weights that {copy.path} started from changed"
    assert caught.value.why.startswith("fingerprint 0123456789ab became ")
    assert caught.value.why.endswith("they are default of resnet/resnet_nano")


def test_other_choices_are_refused_and_shown(stopped: Path, copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.record
    words = ["--lr", "0.1", "--epochs", "3", "--seed", "5", "--checkpoint-keep", "3"]
    assert main.run(["adapt", "resnet_nano", "--dataset", "digits", "--resume", str(copy.path), *words]) == 1
    told = capsys.readouterr().err
    assert f"error: {copy.path} was started with other choices, and a resumed run keeps its own\n" in told
    photos = stopped / "photos"
    assert f"  why: dataset: {photos} then, digits now; lr: 0.003 then, 0.1 now; seed: 11 then, 5 now\n" in told
    assert f"zoo adapt --resume {copy.path}; to change something: zoo adapt --recipe {copy.path} …" in told
    assert copy.record == before
    with pytest.raises(RecipeError) as caught:
        zoo.adapt(recipe=replace(RECIPE, mixup=0.5), resume=copy.path)
    assert caught.value.why == "mixup: 0.3 then, 0.5 now"


def test_the_same_choices_and_those_that_change_nothing_are_taken(whole: Run, copy: Run, stopped: Path) -> None:
    often = replace(RECIPE, checkpoint_every="1 step", checkpoint_keep=4, workers=0)
    heard: list[Event] = []
    done = zoo.adapt("resnet_nano", str(stopped / "photos"), often, resume=copy.path, on_event=heard.append)
    assert len([event for event in heard if isinstance(event, CheckpointSaved)]) > 5
    assert done.record["recipe"]["checkpoint_keep"] == 4 and done.record["resolved"]["workers"] == 0
    mine, theirs = load_file(done.path / "model.safetensors"), load_file(whole.path / "model.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_another_machine_is_noted(copy: Run) -> None:
    record = copy.record
    record["environment"] |= {"torch": "1.0", "platform": "another"}
    copy.write_record(record)
    heard: list[Event] = []
    zoo.adapt(resume=copy.path, on_event=heard.append)
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert any(note.startswith("the result may differ slightly") and "torch: 1.0 then" in note for note in notes)
    assert not any("another" in note for note in notes)


def test_a_finished_run_is_refused(whole: Run) -> None:
    with pytest.raises(RunError) as caught:
        zoo.adapt(resume=whole.path)
    assert caught.value.what == f"the run {whole.path} is finished already"


def test_another_number_of_processes_is_refused(copy: Run) -> None:
    record = copy.record
    record["resolved"]["processes"] = 2
    copy.write_record(record)
    with pytest.raises(RunError) as caught:
        zoo.adapt(resume=copy.path)
    assert caught.value.what == f"{copy.path} was started with 2 process(es), not 1"
    assert caught.value.fix == f"use the same number: zoo adapt --resume {copy.path} --processes 2"


def test_another_plan_is_refused(copy: Run) -> None:
    record = copy.record
    record["plan"]["phases"][1]["epochs"] = 4
    copy.write_record(record)
    with pytest.raises(RunError, match="this zoo makes another plan from the recipe of"):
        zoo.adapt(resume=copy.path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        zoo.adapt(resume=tmp_path)
    assert caught.value.what == f"{tmp_path} is not a run folder"
