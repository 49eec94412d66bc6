"""An objective with parameters, a state and a stream of its own, in the loop that serves all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.training.toy import CLASSES, Loader, Toy, same, state_of
from zoo.data import Batch, Unlabelled
from zoo.errors import TrainingInterrupted
from zoo.events import EpochDone, StepDone
from zoo.recipes.plan import PhasePlan, Plan
from zoo.recipes.recipe import Recipe
from zoo.tasks.outputs import Outputs
from zoo.training.losses.objective import Loss, Objective
from zoo.training.state.checkpoint import load_checkpoint

RECIPE = Recipe(strategy="lp-ft", probe_epochs=1, epochs=3, lr=0.05, weight_decay=0.1, accumulate=2, seed=5, clip=0.5)


class WithUnlabelled(Loader):
    """Batches with images beside them, which are as many as the labelled ones and a function of the epoch too."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(super().epoch(epoch, start_step), start_step):
            generator = torch.Generator().manual_seed(7_000_000 + 1000 * epoch + step)
            images = torch.randn(self.size, 3, 6, 6, generator=generator)
            yield replace(batch, unlabelled=Unlabelled((images,), batch.indices))


class Judged(Objective):
    """Cross-entropy, and a judge of its own whose opinion depends on how far training is and on chance."""

    name = "judge"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.judge = nn.Sequential(nn.Linear(CLASSES, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.progress: list[float] = []

    def trains(self, phase: PhasePlan) -> bool:
        return phase.name != "probe"

    def unlabelled(self, phase: PhasePlan) -> int:
        return 1

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        known = functional.cross_entropy(network(batch.images), batch.labels)
        assert batch.unlabelled is not None
        if not self.judge[0].weight.requires_grad:
            return Loss(known)
        self.calls += 1
        self.progress.append(progress)
        (images,) = batch.unlabelled.views
        opinion = self.judge(network(images)).square().mean()
        return Loss(known + progress * opinion, {"known": known, "opinion": opinion})


def log(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, Toy(folder, RECIPE, WithUnlabelled(), objective=Judged()).train()


def test_the_plan_shows_what_an_objective_trains_at_the_rate_of_the_head(tmp_path: Path) -> None:
    plan = Toy(tmp_path, RECIPE, WithUnlabelled(), objective=Judged()).plan
    probe, finetune = plan.phases
    assert probe.extra is None and finetune.extra is not None
    assert (finetune.extra.name, finetune.extra.params, finetune.extra.undecayed) == ("judge", 21, 5)
    assert finetune.extra.lr == finetune.groups[-1].lr and finetune.extra.weight_decay == 0.1
    assert finetune.unlabelled == 4
    assert "judge" in str(plan) and "4 unlabelled images alongside each batch" in str(plan)
    assert Plan.from_record(json.loads(json.dumps(plan.record()))) == plan


def test_an_objectives_own_parameters_train_and_say_so(whole: tuple[Path, Toy]) -> None:
    folder, toy = whole
    assert isinstance(toy.objective, Judged)
    fresh, trained = Judged().state_dict(), toy.objective.state_dict()
    assert not any(torch.equal(fresh[name], trained[name]) for name in fresh)
    assert int(toy.objective.calls) == 9 and toy.objective.progress == sorted(toy.objective.progress)
    assert toy.objective.progress[0] == 0.0 and max(toy.objective.progress) == 5 / 6
    steps = [line for line in log(folder) if line["event"] == "step"]
    for line in steps:
        assert ("judge" in line["lr"]) == ("parts" in line) == (line["phase"] == "finetune")
        if "parts" in line:
            assert line["lr"]["judge"] == line["lr"]["head"]
            assert set(line["parts"]) == {"known", "opinion"}
    first = next(line for line in steps if "parts" in line)
    assert first["loss"] == pytest.approx(first["parts"]["known"], rel=1e-6), "the schedule begins at nothing"


def test_an_epoch_that_leaves_out_what_was_asked_for_is_not_kept(tmp_path: Path) -> None:
    class Choosy(Judged):
        def complete(self, phase: PhasePlan) -> bool:
            return phase.name != "probe"

    def kept(objective: Judged) -> tuple[str, list[bool]]:
        worse = count(1)

        def evaluate(model: nn.Module) -> Outputs:
            """Says of every epoch that it is worse than the one before."""
            logits = -float(next(worse)) * torch.eye(CLASSES)
            return Outputs(logits, torch.arange(CLASSES))

        folder = tmp_path / type(objective).__name__
        recipe = replace(RECIPE, epochs=2, select_by="loss", soup=True, soup_keep=3)
        toy = Toy(folder, recipe, WithUnlabelled(), evaluate, objective=objective)
        toy.train()
        assert toy.session.position.best is not None
        soup = {entry["phase"] for entry in toy.session.position.epochs_kept}
        assert soup == ({"finetune"} if isinstance(objective, Choosy) else {"probe", "finetune"})
        return toy.session.position.best["phase"], [event.best for event in toy.heard(EpochDone)]

    assert kept(Judged()) == ("probe", [True, False, False])
    assert kept(Choosy()) == ("finetune", [False, True, False])


@pytest.mark.parametrize("number", range(1, 9))
def test_a_resumed_run_has_the_same_objective_to_the_bit(tmp_path: Path, whole: tuple[Path, Toy], number: int) -> None:
    first = Toy(tmp_path, RECIPE, WithUnlabelled(), objective=Judged())
    first.listeners.append(
        lambda event: os.kill(os.getpid(), signal.SIGINT)
        if isinstance(event, StepDone) and event.step == number else None
    )  # fmt: skip
    with pytest.raises(TrainingInterrupted):
        first.train()
    state, _ = load_checkpoint(tmp_path / "checkpoints")
    assert state is not None and same(state["objective"], state_of(first.objective))
    second = Toy(tmp_path, RECIPE, WithUnlabelled(), objective=Judged()).train()
    folder, expected = whole
    assert same(state_of(second.model), state_of(expected.model))
    assert same(state_of(second.objective), state_of(expected.objective))
    assert log(tmp_path) == log(folder)


def test_the_objectives_gradients_do_not_cut_the_networks_short(tmp_path: Path) -> None:
    """A judge with enormous gradients, apart from the network: the network trains as it would without."""

    class Apart(Judged):
        weight = 1e3

        def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
            known = functional.cross_entropy(network(batch.images), batch.labels)
            alone = self.judge[2].weight.square().sum() + 0.0 * sum(each.sum() for each in self.judge.parameters())
            return Loss(known + self.weight * (alone if self.judge[0].weight.requires_grad else 0.0))

    recipe = replace(RECIPE, strategy="finetune", probe_epochs=None, clip=1e-3, optimizer="sgd")
    loud = Apart()
    quiet = Apart()
    quiet.weight = 0.0
    one = Toy(tmp_path / "loud", recipe, WithUnlabelled(), objective=loud).train()
    other = Toy(tmp_path / "quiet", recipe, WithUnlabelled(), objective=quiet).train()
    assert same(state_of(one.model), state_of(other.model))
