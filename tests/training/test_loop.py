from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.toy import CLASSES, GROUPS, Loader, Toy, net, same, state_of
from zoo.data import Batch
from zoo.errors import TrainingError
from zoo.events import EpochDone, PhaseStarted, StepDone
from zoo.models.freezing import Freezer
from zoo.recipes.recipe import Recipe
from zoo.tasks.outputs import Outputs
from zoo.training.losses.objective import Loss, Objective
from zoo.training.optim import rate_factor
from zoo.training.seeds import seed_all
from zoo.training.selection import is_better
from zoo.training.state.checkpoint import load_checkpoint


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Script:
    """Choosing images that say what they are told to say: an accuracy per epoch."""

    def __init__(self, *accuracies: float) -> None:
        self.accuracies = list(accuracies)
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, model: nn.Module) -> Outputs:
        self.seen.append(state_of(model))
        right = round(self.accuracies[len(self.seen) - 1] * 20)
        labels = torch.zeros(20, dtype=torch.long)
        logits = torch.zeros(20, CLASSES)
        logits[:right, 0], logits[right:, 1] = 1.0, 1.0
        return Outputs(logits, labels)


def reference(recipe: Recipe, loader: Loader, norm: str = "live") -> tuple[nn.Module, list[float], nn.Module]:
    """Fine-tuning written out by hand: the weights, the losses, and the average of the weights."""
    model = net()
    average = copy.deepcopy(model)
    Freezer(model, GROUPS, (), [group.name for group in GROUPS] if norm == "fixed" else ()).train()
    rates = {"stem": 0.25, "middle": 0.5, "head": 1.0}
    assert recipe.lr_decay == 0.5 and isinstance(recipe.lr, float)
    parameters = dict(model.named_parameters())
    split = [
        {
            "params": [parameters[key] for key in group.parameters if (parameters[key].ndim > 1) == decayed],
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "peak": recipe.lr * rates[group.name],
        }
        for group in GROUPS
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(split, lr=recipe.lr)
    per_epoch = -(-loader.count // recipe.accumulate)
    losses, step = [], 0
    for epoch in range(recipe.epochs or 0):
        Freezer(model, GROUPS, (), [group.name for group in GROUPS] if norm == "fixed" else ()).train()
        batches = list(loader.epoch(epoch))
        for start in range(0, len(batches), recipe.accumulate):
            seed_all(recipe.seed, "step", step, 0)
            factor = rate_factor(step, per_epoch * (recipe.epochs or 0), kind=recipe.schedule, warmup=recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            chunk = batches[start : start + recipe.accumulate]
            total = 0.0
            for batch in chunk:
                images = batch.images.to(memory_format=torch.channels_last)
                loss = nn.functional.cross_entropy(model(images), batch.labels, label_smoothing=recipe.smoothing)
                (loss / len(chunk)).backward()
                total += loss.item() / len(chunk)
            losses.append(total)
            if recipe.clip:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            decay = 0.0 if step == 1 else min(recipe.ema, 1 - step ** (-2 / 3))
            for name, tensor in average.state_dict().items():
                now = model.state_dict()[name]
                tensor.copy_(tensor * decay + now * (1 - decay) if tensor.is_floating_point() else now)
        model.eval()
    return model, losses, average


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"accumulate": 2},  # 3 batches: the last step of an epoch has one
        {"clip": 0.05},
        {"clip": 0.0, "schedule": "cosine", "weight_decay": 0.3},
        {"schedule": "constant", "warmup": 0.0, "label_smoothing": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", ["live", "fixed"])
def test_training_is_what_one_would_write_by_hand(tmp_path: Path, choices: dict[str, Any], norm: str) -> None:
    recipe = Recipe(strategy="finetune", epochs=3, lr=0.05, lr_decay=0.5, **{"weight_decay": 0.05, **choices})
    # The last epoch is the best, so that its weights are the ones kept.
    toy = Toy(tmp_path, recipe, Loader(), Script(0.1, 0.2, 0.3), norm=norm).train()
    expected, losses, _ = reference(recipe, Loader(), norm)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(toy.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert [event.loss for event in toy.heard(StepDone)] == pytest.approx(losses, rel=1e-5)


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    recipe = Recipe(strategy="finetune", epochs=3, lr=0.05, lr_decay=0.5, weight_decay=0.05, ema=0.6)
    script = Script(0.1, 0.2, 0.3)
    toy = Toy(tmp_path, recipe, Loader(), script).train()
    trained, _, average = reference(recipe, Loader())
    assert same(state_of(toy.model), script.seen[-1])
    for name, tensor in average.state_dict().items():
        torch.testing.assert_close(toy.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.allclose(trained.state_dict()["fc.weight"], toy.model.state_dict()["fc.weight"])


@pytest.mark.parametrize("strategy", ["probe", "partial", "gradual", "lp-ft"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_plan_is_executed_exactly(tmp_path: Path, strategy: str, ema: float) -> None:
    recipe = Recipe(strategy=strategy, epochs=2, probe_epochs=1, lr=0.05, weight_decay=0.5, ema=ema, accumulate=2)
    toy = Toy(tmp_path, recipe)
    before, snapshots = state_of(toy.model), []

    def watch(event: object) -> None:
        if isinstance(event, PhaseStarted | EpochDone):
            snapshots.append((event.phase, state_of(toy.model)))

    toy.listeners.append(watch)
    toy.train()
    assert [(event.phase, event.epochs, event.steps) for event in toy.heard(PhaseStarted)] == [
        (phase.name, phase.epochs, phase.steps) for phase in toy.plan.phases
    ]
    log = lines(tmp_path)
    number = 0
    for phase in toy.plan.phases:
        steps = [line for line in log if line["event"] == "step" and line["phase"] == phase.name]
        assert len(steps) == phase.steps
        for index, line in enumerate(steps):
            number += 1
            factor = rate_factor(index, phase.steps, kind=phase.schedule, warmup=phase.warmup)
            assert line["lr"] == {name: peak * factor for name, peak in phase.rates.items()}
            assert line["step"] == number
        mine = [state for name, state in snapshots if name == phase.name]
        assert len(mine) == phase.epochs + 1
        for group in GROUPS:
            for name in (*group.parameters, *group.buffers):
                moved = not torch.equal(mine[0][name], mine[-1][name])
                assert moved != (group.name in phase.frozen), f"{name} in {phase.name}"
    for name in GROUPS[0].parameters + GROUPS[0].buffers:
        touched = "stem" in {group for phase in toy.plan.phases for group in phase.rates}
        # The average, too, keeps what never trained to the bit.
        assert torch.equal(before[name], toy.model.state_dict()[name]) != touched


def test_of_an_adapted_group_only_what_was_added_trains(tmp_path: Path) -> None:
    model = net()
    model.deep.register_parameter("bias", nn.Parameter(torch.zeros(4)))  # which no group declares
    toy = Toy(tmp_path, Recipe(strategy="partial", train_from="middle", epochs=1, lr=0.05, probe_epochs=0), model=model)
    (phase,) = toy.plan.phases
    middle = replace(phase.groups[1], train="adapter")
    plan = replace(toy.plan, phases=(replace(phase, groups=(phase.groups[0], middle, phase.groups[2])),))
    toy.job = replace(toy.job, plan=plan)
    before = state_of(model)
    after = state_of(toy.train().model)
    moved = {name for name, value in after.items() if not torch.equal(before[name], value)}
    assert moved == {"deep.bias", "fc.weight", "fc.bias"}


def test_fixed_norms_train_their_scale_and_keep_their_statistics(tmp_path: Path) -> None:
    toy = Toy(tmp_path, Recipe(strategy="finetune", epochs=1, lr=0.05), norm="fixed")
    before = state_of(toy.model)
    after = state_of(toy.train().model)
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "after.running_var"):
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["norm.weight"], after["norm.weight"])


def test_weight_decay_spares_biases_and_norms(tmp_path: Path) -> None:
    # Without gradients only decay moves anything.
    class Still(Objective):
        def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
            return Loss(network(batch.images).sum() * 0.0)

    toy = Toy(tmp_path, Recipe(strategy="finetune", epochs=1, lr=0.05, weight_decay=0.5, optimizer="sgd"))
    object.__setattr__(toy.job, "objective", Still())
    before = state_of(toy.model)
    after = state_of(toy.train().model)
    for name in dict(toy.model.named_parameters()):
        assert torch.equal(before[name], after[name]) == (before[name].ndim == 1), name


def test_the_best_epoch_is_kept_and_given_back(tmp_path: Path) -> None:
    script = Script(0.2, 0.9, 0.5, 0.9, 0.8)  # of a draw the later one is kept: the rate has come down further
    toy = Toy(tmp_path, Recipe(strategy="finetune", epochs=5, lr=0.05), Loader(), script).train()
    assert same(state_of(toy.model), script.seen[3]) and not same(script.seen[1], script.seen[3])
    best = toy.session.position.best
    assert best is not None and (best["phase"], best["epoch"], best["step"]) == ("finetune", 4, 12)
    assert best["accuracy"] == pytest.approx(0.9)
    assert [event.best for event in toy.heard(EpochDone)] == [True, True, False, True, False]
    (kept,) = tmp_path.glob("checkpoints/best-*.safetensors")
    assert same(load_file(kept), script.seen[3])


def test_patience_ends_a_phase_and_not_the_next(tmp_path: Path) -> None:
    # The probe is better than anything after it, and still fine-tuning may go on while it gets better itself.
    script = Script(0.9, 0.8, 0.8, 0.3, 0.4, 0.5, 0.4, 0.4)
    recipe = Recipe(strategy="lp-ft", probe_epochs=6, epochs=9, lr=0.05, patience=2)
    toy = Toy(tmp_path, recipe, Loader(), script).train()
    assert [(event.phase, event.epoch) for event in toy.heard(EpochDone)] == [
        *[("probe", epoch) for epoch in (1, 2, 3)],
        *[("finetune", epoch) for epoch in (1, 2, 3, 4, 5)],
    ]
    assert same(state_of(toy.model), script.seen[0])
    rates = [line["lr"]["head"] for line in lines(tmp_path) if line["event"] == "step" and line["phase"] == "finetune"]
    peak = toy.plan.phases[1].rates["head"]
    expected = [peak * rate_factor(step, 27, kind="one-cycle", warmup=0.25) for step in range(15)]
    assert rates == expected, "the schedule is the whole phase's, however early it ends"


@pytest.mark.parametrize(
    ("select_by", "winner"),
    [
        ("accuracy", {"accuracy": 0.9, "loss": 0.9}),
        ("loss", {"accuracy": 0.8, "loss": 0.1}),
        ("refinement", {"accuracy": 0.8, "loss": 0.1}),
    ],
)
def test_select_by(select_by: str, winner: dict[str, float]) -> None:
    epochs = [{"accuracy": 0.5, "loss": 0.5}, {"accuracy": 0.9, "loss": 0.9}, {"accuracy": 0.8, "loss": 0.1}]
    best: dict[str, float] | None = None
    for scores in epochs:
        if is_better({**scores, "refinement": scores["loss"] / 2}, best, select_by):
            best = {**scores, "refinement": scores["loss"] / 2}
    assert best is not None and winner.items() <= best.items()
    assert is_better({"accuracy": 0.5, "loss": 0.4}, epochs[0], "accuracy")
    assert is_better({"accuracy": 0.6, "loss": 0.5}, epochs[0], "loss")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_a_number_stops_before_the_weights_are_spoiled(tmp_path: Path, accumulate: int) -> None:
    recipe = Recipe(strategy="finetune", epochs=2, lr=0.05, accumulate=accumulate)
    toy = Toy(tmp_path, recipe, Loader(spoiled=2))
    with pytest.raises(TrainingError) as caught:
        toy.train()
    step = 3 if accumulate == 1 else 2
    assert caught.value.what == f"the loss is nan at step {step} (phase finetune); nothing was updated by it"
    assert caught.value.why.endswith("in this step: photo-8.png, photo-9.png, photo-10.png, photo-11.png")
    assert "--lr" in caught.value.fix
    assert all(torch.isfinite(parameter).all() for parameter in toy.model.parameters())
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, step))


def test_choosing_images_without_a_finite_loss_end_training_too(tmp_path: Path) -> None:
    def broken(model: nn.Module) -> Outputs:
        return Outputs(torch.full((4, CLASSES), float("nan")), torch.zeros(4, dtype=torch.long))

    toy = Toy(tmp_path, Recipe(strategy="finetune", epochs=2), Loader(), broken)
    with pytest.raises(TrainingError) as caught:
        toy.train()
    assert caught.value.what == "the loss on the validation images is nan after epoch 1 of phase finetune"
    assert not list(tmp_path.glob("checkpoints/best-*"))


def test_half_precision_leaves_no_trace_on_the_model_between_phases(tmp_path: Path) -> None:
    toy = Toy(tmp_path, Recipe(strategy="lp-ft", probe_epochs=1, epochs=1, precision="bf16")).train()
    assert toy.model(torch.zeros(1, 3, 6, 6)).dtype == torch.float32
    assert {parameter.dtype for parameter in toy.model.parameters()} == {torch.float32}
    assert "forward" not in toy.model.__dict__, "a copy would call the original"


def test_every_phase_computes_in_the_runs_precision(tmp_path: Path) -> None:
    """The second phase once ran in float32, and a run resumed within it in bf16: slower, and not the same."""
    toy = Toy(tmp_path, Recipe(strategy="gradual", probe_epochs=1, epochs=1, precision="bf16"))
    seen: dict[str, set[torch.dtype]] = {}
    phases: list[str] = []
    toy.listeners.append(lambda event: phases.append(event.phase) if isinstance(event, PhaseStarted) else None)

    def note(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if toy.model.training:
            seen.setdefault(phases[-1], set()).add(output.dtype)

    toy.model.fc.register_forward_hook(note)
    toy.train()
    assert seen == {phase: {torch.bfloat16} for phase in ("probe", "unfreeze-1", "finetune")}


def test_a_loss_beyond_all_measure_stops_too(tmp_path: Path) -> None:
    toy = Toy(
        tmp_path, Recipe(strategy="finetune", epochs=3, lr=100.0, optimizer="sgd", clip=0.0, checkpoint_every="1 step")
    )
    with pytest.raises(TrainingError, match=r"^the loss is \d[\d.e+]+ at step \d+ \(phase finetune\)") as caught:
        toy.train()
    assert "photo-" in caught.value.why
    state, damaged = load_checkpoint(tmp_path / "checkpoints")
    assert state is not None and not damaged
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())
