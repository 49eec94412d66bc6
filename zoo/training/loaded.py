"""Records of a training's inputs: what was loaded, what was decided, how to train it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from torch import nn

from zoo.data import Dataset, EvaluationLoader, TrainLoader
from zoo.data.unlabelled import TrueLabels, UnlabelledSet
from zoo.events import Listener
from zoo.models import layer_groups
from zoo.models.layer_groups import Group
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import BackboneSpec, Weights
from zoo.recipes.plan import Plan
from zoo.recipes.planner import GroupFacts, make_plan
from zoo.recipes.recipe import Recipe
from zoo.training.losses.objective import Objective
from zoo.training.machine import Machine
from zoo.training.optim import decays
from zoo.training.unlabelled_stream import UnlabelledStream


@dataclass(frozen=True, slots=True)
class Loaded:
    """Images, a network, and the recipe as the user gave it."""

    spec: BackboneSpec
    weights: Weights | None
    fingerprint: str | None  # sha256 of all pretrained tensors, as loaded; None from scratch
    model: nn.Module  # on the device, with its new head
    groups: tuple[Group, ...]
    config: DataConfig
    dataset: Dataset
    dataset_ref: str
    unlabelled: UnlabelledSet | None
    true_labels: TrueLabels | None  # of the unlabelled images, for the report only
    recipe: Recipe  # the user's, with paths that mean the same from another folder
    machine: Machine
    accelerator: Accelerator
    emit: Listener  # receives this process's events
    data_seconds: float  # to open, read and decode the data

    @property
    def code(self) -> str:
        """The distribution and version that define the network."""
        return f"{self.spec.distribution} {self.spec.version}"

    def planned(self, recipe: Recipe, steps: tuple[int, int], norm: str, notes: Sequence[str] = ()) -> Plan:
        """Returns the plan of a recipe; `steps` are those of `Work.steps`, `norm` is the resolved norm mode."""
        loading = [*self.dataset.notes, *(self.unlabelled.notes if self.unlabelled else ())]
        if self.dataset.bad:
            loading.append(f"{len(self.dataset.bad)} unreadable image(s) were left out; run.json lists them")
        return make_plan(
            recipe,
            [facts(self.model, group) for group in self.groups],
            backbone=self.spec.full_name,
            dataset=self.dataset.name,
            steps_per_epoch=steps[1],
            head_steps=steps[0],
            norm=norm,
            notes=[*loading, *notes],
        )


@dataclass(frozen=True, slots=True)
class Work:
    """How to train what was loaded."""

    settled: Recipe  # with automatic choices replaced
    loader: TrainLoader  # this process's batches of the training images
    val_loader: EvaluationLoader  # and of the validation images
    objective: Objective  # what is minimised
    stream: UnlabelledStream | None  # batches of unlabelled images

    @property
    def steps(self) -> tuple[int, int]:
        """Optimizer steps of an epoch: while only the head trains, and while more does.

        Unlabelled images only train the features, so they do not make the head's epochs longer.
        """
        head = self.loader.steps_per_pass
        body = self.stream.steps if self.stream else head
        return -(-head // self.settled.accumulate), -(-body // self.settled.accumulate)


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a decider; empty if the recipe settles the choice already."""

    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of the recipe
    note: str = ""  # for the user


def facts(model: nn.Module, group: Group) -> GroupFacts:
    """Returns what planning needs to know of a layer group."""
    parameters = dict(model.named_parameters())
    tensors = [parameters[name] for name in group.parameters]
    return GroupFacts(
        name=group.name,
        params=layer_groups.parameter_count(model, group),
        undecayed=sum(tensor.numel() for tensor in tensors if not decays(tensor)),
        has_norm=any(name.endswith("running_mean") for name in group.buffers),
    )
