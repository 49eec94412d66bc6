"""Adapting to a domain without labels, from beginning to end."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from tests.pictures import four
from zoo.errors import RecipeError, RunError, TrainingInterrupted
from zoo.events import Event, Note, StepDone, ignore
from zoo.recipes import methods
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import Prepared, prepare
from zoo.runs.run_folder import Run, seal
from zoo.studies import align_auto
from zoo.training import make_objective, unlabelled_stream
from zoo.training.losses import discover
from zoo.training.losses.supervised import Supervised

RECIPE = Recipe(
    strategy="lp-ft", probe_epochs=1, epochs=2, lr=3e-3, batch_size=8, image_size=32, augment="light", threads=1,
    cache="off", recalibrate="off", refit="off", norm="live", seed=3,
)  # fmt: skip
NAMES = ("amber", "blue", "green", "red")


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four(tmp_path_factory.mktemp("domains") / "photos", 14)


@pytest.fixture(scope="module")
def target(source: Path) -> Path:
    """The same colours the other way round in brightness, in one folder; the labels are in a table."""
    folder = source.parent / "drawings"
    folder.mkdir()
    rows = []
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        Image.fromarray(255 - np.asarray(Image.open(path)) // 2).save(folder / f"{number:03d}.png")
        rows.append((f"{number:03d}.png", path.parent.name))
    for name, labels in (("right", [row[1] for row in rows]), ("wrong", [NAMES[k * k % 4] for k in range(len(rows))])):
        lines = [f"{row[0]},{label}" for row, label in zip(rows, labels, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["path,label", *lines]))
    (folder / "none.csv").write_text("\n".join(["path", *(row[0] for row in rows)]))
    return folder


def adapted(source: Path, out: Path, target: Path, **choices: Any) -> Run:
    recipe = replace(RECIPE, target=str(target), **choices)
    return zoo.adapt("resnet_nano", str(source), recipe, out=out)


def metrics(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_model(run: Run, other: Run) -> bool:
    mine, theirs = load_file(run.path / "model.safetensors"), load_file(other.path / "model.safetensors")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "choices", [{"align": "daan"}, {"align": "mcc", "semi": "flexmatch", "unlabelled_ratio": 1, "refit": "on"}]
)
def test_the_targets_labels_change_nothing_but_the_report(
    tmp_path: Path, source: Path, target: Path, choices: dict[str, Any]
) -> None:
    runs = {
        name: adapted(source, tmp_path / name, target / f"{name}.csv", **choices) for name in ("right", "wrong", "none")
    }
    right, wrong, none = (runs[name] for name in ("right", "wrong", "none"))
    for other in (wrong, none):
        assert same_model(right, other) and metrics(right) == metrics(other)
        assert right.record["best"] == other.record["best"]
        named = {"selected_on": other.record["result"]["selected_on"]}  # with the table's own name
        assert right.record["result"] | named == other.record["result"]
        for key in ("validators", "domains", "fingerprint"):
            assert right.record["target"][key] == other.record["target"][key]
    told = right.record["target"]
    assert told["result"]["confusion"] != wrong.record["target"]["result"]["confusion"]
    assert "result" not in none.record["target"] and "oracle" not in none.record["target"]
    assert len(told["epochs"]) == 3 and told["oracle"]["accuracy"] >= told["chosen"]["accuracy"]
    assert told["select_by"] == "information" and told["result"]["n"] == told["choosing"] == 56
    chose = f"{told['name']}, without labels"
    assert told["result"]["selected_on"] == right.record["result"]["selected_on"] == chose
    assert not list(right.path.glob("domains.json")) and not right.checkpoints.exists()
    steps = [line for line in metrics(right) if line["event"] == "step"]
    assert all(("parts" in line) == line["phase"].endswith("finetune") for line in steps)
    assert any(line["phase"] == "refit finetune" for line in steps) == (choices.get("refit") == "on")
    if choices["align"] == "daan":
        assert all(0 <= line["parts"]["omega"] <= 1 for line in steps if "parts" in line)
    epochs = [line for line in metrics(right) if line["event"] == "epoch"]
    assert all(set(line["validators"]) == {"entropy", "information", "density"} for line in epochs)


def test_the_published_model_is_the_network_alone(tmp_path: Path, source: Path, target: Path) -> None:
    run = adapted(source, tmp_path / "run", target / "none.csv", align="daan", epochs=1, probe_epochs=0)
    plain = zoo.adapt("resnet_nano", str(source), replace(RECIPE, epochs=1, probe_epochs=0), out=tmp_path / "plain")
    assert load_file(run.path / "model.safetensors").keys() == load_file(plain.path / "model.safetensors").keys()
    phase = run.record["plan"]["phases"][0]
    assert phase["extra"]["name"] == "daan" and phase["extra"]["lr"] == phase["groups"][-1]["lr"]
    assert phase["unlabelled"] == 8


CARRYING: dict[str, Any] = {  # everything on that carries something from step to step
    "align": "daan", "semi": "flexmatch", "unlabelled_ratio": 2, "ema": 0.8, "mixup": 0.3, "accumulate": 2,
    "threshold": 0.4,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(source: Path, target: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)
        return adapted(source, source.parent / "whole", target / "right.csv", **CARRYING)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, source: Path, target: Path, whole: Run, stop: int
) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe = replace(RECIPE, target=str(target / "right.csv"), **CARRYING)
    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(source), recipe, out=tmp_path / "run", on_event=listen)
    run = zoo.adapt(resume=tmp_path / "run")
    assert same_model(run, whole) and metrics(run) == metrics(whole)
    assert run.record["target"] == whole.record["target"] and run.record["best"] == whole.record["best"]


def test_auto_tries_methods_and_takes_the_one_that_target_images_speak_for(
    tmp_path: Path, source: Path, target: Path
) -> None:
    choices: dict[str, Any] = {"align": "none,mcc", "epochs": 1, "probe_epochs": 0, "select_by": "entropy"}
    run, bare, misled = (
        adapted(source, tmp_path / name, target / f"{labels}.csv", **choices)
        for name, labels in (("run", "right"), ("bare", "none"), ("misled", "wrong"))
    )
    rows = run.record["target"]["tried"]["rows"]
    others = bare.record["target"]["tried"]["rows"]
    assert [(row["score"], row["chosen"]) for row in others] == [(row["score"], row["chosen"]) for row in rows]
    assert same_model(run, misled) and misled.record["best"] == run.record["best"], "whatever the labels are"
    assert same_model(run, bare) and bare.record["best"] == run.record["best"], "whether there are labels or not"
    assert all(row["accuracy"] is not None for row in rows) and all(row["accuracy"] is None for row in others)
    assert [row["align"] for row in rows] == ["none", "mcc"] and run.record["target"]["tried"]["by"] == "entropy"
    (taken,) = (row for row in rows if row["chosen"])
    assert taken["score"] == min(row["score"] for row in rows)
    assert (
        run.path == tmp_path / "run" and run.record["name"] == "run" and run.record["recipe"]["align"] == taken["align"]
    )
    other = next(row for row in rows if not row["chosen"])
    assert Run(run.path / other["run"] / "run").finished_record()["recipe"]["align"] == other["align"]
    assert [path.name for path in (run.path / "tried").iterdir()] == [other["align"]]
    assert zoo.evaluate(run)["accuracy"] == run.record["result"]["accuracy"], "it is a run as any other"
    assert run.record["files"]["run.json"] == seal(run.record)
    with pytest.raises(RecipeError, match="there is no one plan for --align auto"):
        zoo.plan("resnet_nano", str(source), replace(RECIPE, target=str(target), align="auto"))


def test_adabn_changes_norm_statistics_and_nothing_else(tmp_path: Path, source: Path, target: Path) -> None:
    plain = adapted(source, tmp_path / "plain", target / "right.csv")
    adabn = adapted(source, tmp_path / "adabn", target / "right.csv", align="adabn")
    assert same_model(adabn, adapted(source, tmp_path / "misled", target / "wrong.csv", align="adabn"))
    assert metrics(plain) == metrics(adabn), "it trains on the source alone"
    mine, theirs = (load_file(run.path / "model.safetensors") for run in (plain, adabn))
    for name in mine:
        moved = name.endswith(("running_mean", "running_var"))
        assert torch.equal(mine[name], theirs[name]) != moved or name.endswith("num_batches_tracked"), name

    truth = adabn.record["target"]
    assert not {"epochs", "chosen", "oracle"} & truth.keys(), "what was compared is not what was saved"
    assert truth["result"]["selected_on"] == adabn.record["result"]["selected_on"] == "val (cut from all images)"
    assert {"epochs", "chosen", "oracle"} <= plain.record["target"].keys()


def test_adabn_without_statistics_is_refused() -> None:
    recipe = Recipe(strategy="finetune", target="elsewhere", align="adabn")

    def made(recipe: Recipe, network: torch.nn.Module) -> object:
        loaded: Any = SimpleNamespace(model=network)
        return make_objective.unlabelled_objective(recipe, Supervised(2), loaded, None)

    folded = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))  # mean 0, variance 1
    for network, why in ((torch.nn.Linear(3, 2), "no norms that keep statistics"), (folded, "folded batch norms")):
        with pytest.raises(RecipeError, match="--align adabn has nothing to adapt") as caught:
            made(recipe, network)
        assert why in caught.value.why
    assert made(replace(recipe, strategy="scratch"), folded), "where all begins anew, norms look like that too"


def test_methods_that_compare_images_say_what_a_cut_batch_is_to_them_and_refuse_too_small_a_one() -> None:
    shared: dict[str, Any] = {"strategy": "finetune", "target": "elsewhere", "batch_size": 4}
    whole = set()
    for method in methods.ALIGNMENT:
        recipe = Recipe(align=method, **shared)
        assert unlabelled_stream.cut_note(recipe, 1) == ""
        cut = f"{method} compares images within each 2 labelled ones of a step's 4"
        ((term, _),) = discover.chosen(recipe)
        told, least = term.whole, term.least
        whole |= {method} if told else set()
        assert (
            unlabelled_stream.cut_note(recipe, 2).startswith(cut) == told == bool(unlabelled_stream.cut_note(recipe, 2))
        )
        assert bool(unlabelled_stream.cut_note(replace(recipe, accumulate=3), 1)) == told
        unlabelled_stream.require_enough(recipe, 100, 100, 2)
        for labelled, images, processes in ((100, 100, 4), (1, 100, 1), (100, 1, 1)):
            if least > 1:
                with pytest.raises(RecipeError, match=f"{method} needs {least} images of each domain"):
                    unlabelled_stream.require_enough(recipe, labelled, images, processes)
            else:
                unlabelled_stream.require_enough(recipe, labelled, images, processes)
    assert {"coral", "mmd", "mcc", "cdan"} <= whole and not {"dann", "daan"} & whole


def left_out(ready: Prepared, methods: Sequence[str]) -> dict[str, str]:
    return align_auto.left_out(ready.loaded, ready.work, ready.plan, methods)


def test_auto_leaves_out_what_does_not_fit_before_anything_trains(prepared: Prepared) -> None:
    every = (*methods.SOURCE_ONLY, *methods.ALIGNMENT)
    assert left_out(prepared, every) == {}
    without = copy.deepcopy(prepared.loaded.model)
    for module in list(without.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                setattr(module, name, torch.nn.Identity())
    assert left_out(replace(prepared, loaded=replace(prepared.loaded, model=without)), every) == {
        "adabn": "the network has no norms that keep statistics"
    }


@pytest.mark.parametrize(
    ("choices", "unfit"),
    [
        ({"train_from": "head", "strategy": "finetune"}, {"dann", "coral"}),
        ({"batch_size": 1, "norm": "fixed"}, {"coral"}),
    ],
)  # fmt: skip
def test_methods_that_could_not_train_are_left_out_too(
    source: Path, target: Path, choices: dict[str, Any], unfit: set[str]
) -> None:
    recipe = replace(RECIPE, target=str(target / "right.csv"), **choices)
    ready = prepare("resnet_nano", str(source), recipe, ignore)
    assert set(left_out(ready, ("none", "dann", "coral"))) == unfit


@pytest.mark.parametrize(
    ("by", "taken"),
    [("auto", "cdan"), ("information", "cdan"), ("entropy", "none"), ("accuracy", "dann"), ("loss", "cdan"),
     ("refinement", "none")],
)  # fmt: skip
def test_auto_takes_what_it_was_told_to_choose_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, taken: str
) -> None:
    best = {"none": (0.5, 0.9, 0.1), "dann": (0.9, 0.7, 0.3), "cdan": (0.7, 0.2, 0.4)}
    said = {"none": (0.1, 0.1), "dann": (0.3, 0.8), "cdan": (0.4, 0.9)}
    written: list[dict[str, Any]] = []

    def stand_in(backbone: str, dataset: str, recipe: Recipe, emit: object) -> Any:
        return SimpleNamespace(
            align=recipe.align,
            loaded=SimpleNamespace(
                dataset=SimpleNamespace(test=None),
                accelerator=SimpleNamespace(wait_for_everyone=lambda: None),
            ),
            work=None,
            plan=None,
        )

    def begin(ready: Any, out: Path, emit: object, began: float) -> Any:
        out.mkdir(parents=True)
        accuracy, loss, refinement = best[ready.align]
        entropy, information = said[ready.align]
        found = {"entropy": entropy, "information": information, "density": 0.0}
        record = {
            "align": ready.align,
            "best": {"accuracy": accuracy, "loss": loss, "refinement": refinement},
            "target": {"validators": found},
            "result": {"accuracy": 0.5},
        }
        return SimpleNamespace(path=out, record=record)

    monkeypatch.setattr(align_auto, "prepare", stand_in)
    monkeypatch.setattr(align_auto, "left_out", lambda *of: {"adabn": "no norms"})
    monkeypatch.setattr(align_auto.train, "begin", begin)
    monkeypatch.setattr(align_auto, "write_up", lambda this, part, record: written.append(record))
    recipe = Recipe(strategy="finetune", target="elsewhere", align="auto", select_by=by)
    notes: list[Event] = []
    align_auto.start("resnet_nano", "photos", recipe, tmp_path / "run", notes.append)
    (record,) = written
    tried = record["target"]["tried"]
    assert record["align"] == taken and tried["by"] == ("information" if by == "auto" else by)
    assert [row["align"] for row in tried["rows"]] == ["none", "dann", "cdan"]
    assert tried["left_out"] == {"adabn": "no norms"} and Note("--align adabn is not tried: no norms") in notes
    assert next(row for row in tried["rows"] if row["chosen"])["align"] == taken


@pytest.fixture(scope="module")
def prepared(source: Path, target: Path) -> Prepared:
    return prepare("resnet_nano", str(source), replace(RECIPE, target=str(target / "right.csv"), align="mcc"), ignore)


def test_both_sets_are_passed_over_and_in_orders_of_their_own(prepared: Prepared) -> None:
    ready = prepared
    assert ready.work.stream is not None
    assert len(ready.loaded.dataset.train) == 32 + 4 and len(ready.work.stream.images.train) == 56
    assert [phase.steps_per_epoch for phase in ready.plan.phases] == [4, 7], "the larger set decides, where it is used"
    batches = list(ready.work.stream.joined(ready.work.loader)(1, 0))
    assert len(batches) == 7 and all(batch.unlabelled is not None for batch in batches)
    mine = [place for batch in batches[:4] for place in batch.indices.tolist()]
    theirs = [place for batch in batches for place in batch.unlabelled.indices.tolist()]  # type: ignore[union-attr]
    assert sorted(theirs) == list(range(56)) and mine[:8] != theirs[:8]
    later = list(ready.work.stream.joined(ready.work.loader)(1, 5))
    assert all(
        torch.equal(one.images, other.images) and torch.equal(one.unlabelled.views[0], other.unlabelled.views[0])  # type: ignore[union-attr]
        for one, other in zip(batches[5:], later, strict=True)
    )


def test_labels_of_images_without_labels_are_not_looked_at(tmp_path: Path, source: Path, target: Path) -> None:
    runs = [
        zoo.adapt("resnet_nano", str(source), replace(RECIPE, epochs=1, unlabelled=str(target / f"{labels}.csv"),
                  semi="flexmatch", unlabelled_ratio=1, threshold=0.3), out=tmp_path / labels)
        for labels in ("right", "wrong", "none")
    ]  # fmt: skip
    for run in runs:
        assert same_model(run, runs[0]) and metrics(run) == metrics(runs[0])
        told, first = (each.record["unlabelled"] for each in (run, runs[0]))
        assert told | {"ref": first["ref"], "name": first["name"]} == first


def test_sets_of_one_size_are_not_paired_by_place(source: Path) -> None:
    """With one seed for both, files sorted by class would have put the same classes into one batch."""
    recipe = replace(RECIPE, unlabelled=str(source), semi="pseudo", unlabelled_ratio=1)
    ready = prepare("resnet_nano", str(source), recipe, ignore)
    assert ready.work.stream is not None
    mine, theirs = ready.work.loader, ready.work.stream.views[0]
    assert [key.position for key in mine.keys(0)[0]] != [key.position for key in theirs.keys(0)[0]]
    report = {sample.id for sample in ready.loaded.dataset.test.samples}
    assert not report & {sample.id for sample in ready.work.stream.images.train.samples}, (
        "what is tested is not trained on"
    )


def test_a_target_that_changed_is_refused(tmp_path: Path, source: Path, target: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "flat"
    folder.mkdir()
    for path in sorted(target.glob("*.png")):
        (folder / path.name).write_bytes(path.read_bytes())
    recipe = replace(RECIPE, target=str(folder), align="coral")
    with pytest.raises(TrainingInterrupted):
        zoo.adapt("resnet_nano", str(source), recipe, out=tmp_path / "run", on_event=listen)
    next(folder.glob("*.png")).unlink()
    with pytest.raises(RunError, match=r"the unlabelled images of .* changed since it started"):
        zoo.adapt(resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("choices", "fault"),
    [
        ({"align": "dann"}, "align: needs images to adapt to; name them with --target"),
        ({"semi": "fixmatch"}, "semi: needs unlabelled images"),
        ({"target": "a", "unlabelled": "b", "semi": "pseudo"}, "unlabelled: with a target"),
        ({"unlabelled": "b"}, "unlabelled: nothing is learnt"),
        ({"select_by": "density"}, "select_by: density looks at target images"),
        ({"target": "a", "align": "mmd", "strategy": "probe"}, "strategy: a probe keeps the features"),
    ],
)
def test_choices_that_contradict_each_other_are_said(choices: dict[str, Any], fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**choices)
    assert fault in caught.value.why
