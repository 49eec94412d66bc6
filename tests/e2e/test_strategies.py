"""Every strategy on every kind of backbone: the loss falls, and what was planned is what happened."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.pictures import four
from zoo.events import EpochDone, Event, PhaseStarted
from zoo.models import layer_groups, lookup, saved
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.training.optim import rate_factor


@dataclass(frozen=True)
class Setting:
    """What a backbone needs to learn four colours within a few steps."""

    size: int = 32  # side of the images, pixels: the smallest that the architecture takes well
    batch: int = 8
    epochs: int = 3
    probe_lr: float = 2e-2
    lr: float = 2e-3  # where pretrained layers train


BACKBONES = {
    "resnet_nano": Setting(),
    "resnet18": Setting(),
    "vgg11_bn": Setting(),
    "alexnet": Setting(size=64, probe_lr=0.3),  # random features without norms are tiny
    "googlenet": Setting(lr=5e-4),  # at four times that, losses leap on some processors
    "timm/mobilenetv2_100": Setting(size=64, batch=16, epochs=10),  # at 32 its last norms would see one pixel each
}
STRATEGIES = ("probe", "partial", "finetune", "gradual", "lp-ft", "scratch")
# Model arguments in the weights' metadata: this one spares VGG half a gigabyte of fully connected layers.
ARGUMENTS = {"vgg11_bn": {"mlp_ratio": 1 / 64}}
# On every other family the strategy that goes through all groups is enough, as long as minutes count; AlexNet has its
# fully connected layers at full size, which take half a minute to step and to save.
QUICK = {("alexnet", "probe"), *(("resnet_nano", strategy) for strategy in STRATEGIES),
         *((backbone, "gradual") for backbone in BACKBONES if backbone not in ("alexnet", "resnet18"))}  # fmt: skip


def cases() -> list[object]:
    return [
        pytest.param(backbone, strategy, marks=() if (backbone, strategy) in QUICK else pytest.mark.heavy)
        for backbone in BACKBONES
        for strategy in STRATEGIES
    ]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    gc.freeze()  # a phase ends with a garbage collection, which need not look at every import
    yield tmp_path_factory.mktemp("strategies")
    gc.unfreeze()


def pictures(workshop: Path, size: int) -> Path:
    folder = workshop / f"pictures-{size}"
    return folder if folder.exists() else four(folder, 14, size=size)


def weights_file(workshop: Path, backbone: str) -> Path:
    """Random weights in a file, as a person would bring them: there is no network to fetch pretrained ones from.

    Their norm statistics are those of made-up images, so that the features of a frozen network have sane sizes.
    """
    path = workshop / f"{backbone.replace('/', '-')}.safetensors"
    if path.exists():
        return path
    torch.manual_seed(1)
    spec, arguments = zoo.get(backbone), ARGUMENTS.get(backbone, {})
    lookup.register_architectures(spec)
    model = timm.create_model(spec.arch, num_classes=7, **arguments).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average over what follows
    side = BACKBONES[backbone].size
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(8, 3, 1, 1) + 0.3 * torch.randn(8, 3, side, side))
    facts = {"architecture": spec.arch, "num_classes": 7, "model_args": arguments}
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        path,
        metadata={key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()},
    )
    return path


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report and waiting for the disk take longer than these trainings; tests/test_api.py does both."""
    monkeypatch.setattr("zoo.runs.finish.write_report", lambda run, *_: run.report)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(("backbone", "strategy"), cases())
def test_strategy(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, strategy: str
) -> None:
    setting = BACKBONES[backbone]
    started: dict[str, int] = {}
    weights = "default" if backbone == "resnet_nano" else str(weights_file(workshop, backbone))
    recipe = Recipe(
        strategy=strategy,
        weights="default" if strategy == "scratch" else weights,
        epochs=max(setting.epochs, 6 if strategy == "scratch" else 0),
        probe_epochs=1 if strategy in ("gradual", "lp-ft") else None,
        lr={"probe": setting.probe_lr, "scratch": 2e-3}.get(strategy, setting.lr),
        lr_decay=0.7,
        probe_lr=setting.probe_lr if strategy in ("gradual", "lp-ft") else None,
        batch_size=setting.batch,
        image_size=setting.size,
        augment="none",
        label_smoothing=0.0,
        precision="fp32",
        cache="off",
        refit="off",
        threads=1,
    )
    network: list[torch.nn.Module] = []
    before: dict[str, torch.Tensor] = {}
    moved: dict[str, set[str]] = {}  # phase -> tensors that it changed

    def build(*args: Any, **kwargs: Any) -> torch.nn.Module:
        network.append(real_build(*args, **kwargs))
        return network[-1]

    real_build = saved.build
    monkeypatch.setattr(saved, "build", build)

    def watch(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            started[event.phase] = event.steps
            before.update({name: tensor.clone() for name, tensor in network[0].state_dict().items()})
        if isinstance(event, EpochDone) and event.epoch == event.epochs:
            after = network[0].state_dict()
            moved[event.phase] = {name for name in after if not torch.equal(before[name], after[name])}

    run = zoo.adapt(backbone, str(pictures(workshop, setting.size)), recipe, out=tmp_path / "run", on_event=watch)

    plan = Plan.from_record(run.record["plan"])
    assert started == {phase.name: phase.steps for phase in plan.phases}
    log = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    for phase in plan.phases:
        steps = [line for line in log if line["event"] == "step" and line["phase"] == phase.name]
        assert len(steps) == phase.steps
        for number, line in enumerate(steps):
            factor = rate_factor(number, phase.steps, kind=phase.schedule, warmup=phase.warmup)
            assert line["lr"] == {name: rate * factor for name, rate in phase.rates.items()}
    assigned = layer_groups.assign(network[0], zoo.get(backbone))
    owner = {name: group.name for group in assigned for name in (*group.parameters, *group.buffers)}
    for phase in plan.phases:
        touched = {owner[name] for name in moved[phase.name]}
        assert touched == set(phase.rates), f"in {phase.name}"
    losses = [line["loss"] for line in log if line["event"] == "step"]
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4]), losses
    assert load_file(run.path / "model.safetensors").keys() <= set(owner)
    assert run.result.n == 12 and run.finished
