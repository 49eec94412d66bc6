"""A network, batches and a job so small that a whole training takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from zoo.base.durations import parse_interval
from zoo.data import Batch
from zoo.events import Event
from zoo.models.layer_groups import Group
from zoo.recipes.planner import make_plan
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run
from zoo.tasks.outputs import Outputs
from zoo.tasks.schema import one_class
from zoo.tasks.scoring import scores_of
from zoo.training import machine
from zoo.training.collect import collect
from zoo.training.frozen_cache.phase_data import Source
from zoo.training.loaded import facts
from zoo.training.loop import Job, train
from zoo.training.losses.objective import Objective, with_objective
from zoo.training.losses.supervised import Supervised
from zoo.training.state.session import Session

CLASSES = 3


def _statistics(norm: str) -> tuple[str, ...]:
    return tuple(f"{norm}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked"))


GROUPS = (
    Group("stem", ("conv.weight", "norm.weight", "norm.bias"), _statistics("norm")),
    Group("middle", ("deep.weight", "after.weight", "after.bias"), _statistics("after")),
    Group("head", ("fc.weight", "fc.bias"), ()),
)


class Net(nn.Module):
    """Two convolutions with batch norm, dropout, and a linear head. (B, 3, 6, 6) to (B, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv.bias = None
        self.deep, self.after = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(4, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(images)))
        hidden = torch.relu(self.after(self.deep(hidden)))
        return self.fc(self.drop(hidden.mean((2, 3))))


@dataclass
class Loader:
    """Batches that are a function of the epoch alone, as the real loader's are."""

    count: int = 3
    size: int = 4
    spoiled: int | None = None  # this batch of every epoch holds a NaN

    @property
    def steps_per_epoch(self) -> int:
        return self.count

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, self.count):
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            labels = torch.randint(CLASSES, (self.size,), generator=generator)
            images = torch.randn(self.size, 3, 6, 6, generator=generator) + labels[:, None, None, None]
            if step == self.spoiled:
                images[0, 0, 0, 0] = float("nan")
            yield Batch(images, labels, torch.arange(step * self.size, (step + 1) * self.size))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


class Toy:
    """One training of the toy network in a folder.

    Args:
        folder: The run folder.
        recipe: What to do; its device and precision are set here.
        loader: Where batches come from.
        evaluate: What the validation images say; default: the truth, on two batches of their own.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        loader: Loader | None = None,
        evaluate: Callable[[nn.Module], Outputs] | None = None,
        *,
        norm: str = "live",
        model: nn.Module | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.model = model if model is not None else net()
        self.loader = loader or Loader()
        if recipe.select_by == "auto":  # which is decided before training
            recipe = replace(recipe, select_by="accuracy")
        settled = machine.Machine("cpu", "fp32" if recipe.precision == "auto" else recipe.precision, 1, 1)
        self.accelerator = machine.make_accelerator(settled)
        run = Run(folder)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        supervised = Supervised(CLASSES, label_smoothing=recipe.smoothing, mixup=recipe.mixup)
        self.objective = objective or supervised
        plan = make_plan(
            recipe,
            [facts(self.model, group) for group in GROUPS],
            backbone="kit/toy",
            dataset="noise",
            steps_per_epoch=-(-self.loader.steps_per_epoch // recipe.accumulate),
            norm=norm,
        )
        self.plan = with_objective(plan, self.objective, self.loader.size)
        every = parse_interval(recipe.checkpoint_every)
        self.session = Session(
            folder,
            run.metrics_path,
            run.checkpoints,
            self.accelerator,
            self.hear,
            every=every,
            keep=recipe.checkpoint_keep,
        )
        self.job = Job(
            model=self.model,
            groups=GROUPS,
            plan=self.plan,
            recipe=recipe,
            source=lambda *_: Source(self.model, self.loader.epoch, evaluate or self.measure),
            objective=self.objective,
            accelerator=self.accelerator,
            scores=scores_of(one_class(range(CLASSES))),
            sample_ids=[f"photo-{number}.png" for number in range(self.loader.count * self.loader.size)],
        )
        self.listeners: list[Callable[[Event], None]] = []

    def hear(self, event: Event) -> None:
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def measure(self, model: nn.Module) -> Outputs:
        return collect(model, Loader(2, 8).epoch(999), self.accelerator, mixed=True)

    def train(self) -> Toy:
        with self.session.stoppable():
            train(self.job, self.session)
        return self

    def heard(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def pieces(
    model: nn.Module, accelerator: Any, train: Sequence[Any] = (), val: Sequence[Any] = (), **others: Any
) -> Any:
    """What is loaded, as far as automatic choices use it."""
    loaded: dict[str, Any] = {
        "model": model,
        "groups": GROUPS,
        "accelerator": accelerator,
        "machine": SimpleNamespace(processes=accelerator.num_processes),
        "dataset": SimpleNamespace(train=train, val=val),
        "unlabelled": None,
        "config": SimpleNamespace(input_size=(3, 6, 6)),
    }
    return SimpleNamespace(**{**loaded, **others})
