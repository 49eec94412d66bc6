"""What a training starts from, as records: what was loaded, what is decided of it, how it is to be trained."""

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
    """Images and a network, and the choices as they were asked for."""

    spec: BackboneSpec
    weights: Weights | None
    fingerprint: str | None  # sha256 of all that pretrained weights brought, as they came; None from scratch
    model: nn.Module  # on the device, with its new head
    groups: tuple[Group, ...]
    config: DataConfig
    dataset: Dataset
    dataset_ref: str
    unlabelled: UnlabelledSet | None  # images without labels
    true_labels: TrueLabels | None  # their labels, for the report alone
    recipe: Recipe  # as asked for, with paths that mean the same from another folder
    machine: Machine
    accelerator: Accelerator
    emit: Listener  # whoever listens to this process
    data_seconds: float  # that opening, reading and decoding the data took

    @property
    def code(self) -> str:
        """Whose code the network is."""
        return f"{self.spec.distribution} {self.spec.version}"

    def planned(self, recipe: Recipe, steps: tuple[int, int], norm: str, notes: Sequence[str] = ()) -> Plan:
        """The plan of choices.

        Args:
            recipe: The choices.
            steps: Optimizer steps of an epoch where the head alone trains, and where more does.
            norm: What `norm` came to.
            notes: What a person should know besides what loading has found.
        """
        found = [*self.dataset.notes, *(self.unlabelled.notes if self.unlabelled else ())]
        if self.dataset.bad:
            found.append(f"{len(self.dataset.bad)} unreadable image(s) were left out; run.json lists them")
        return make_plan(
            recipe,
            [facts(self.model, group) for group in self.groups],
            backbone=self.spec.full_name,
            dataset=self.dataset.name,
            steps_per_epoch=steps[1],
            head_steps=steps[0],
            norm=norm,
            notes=[*found, *notes],
        )


@dataclass(frozen=True, slots=True)
class Work:
    """How to train what was loaded."""

    settled: Recipe  # with automatic choices replaced
    loader: TrainLoader  # this process's batches of the training images
    val_loader: EvaluationLoader  # and of those that choose the epoch
    objective: Objective  # what is minimised
    stream: UnlabelledStream | None  # images without labels, in batches

    @property
    def steps(self) -> tuple[int, int]:
        """Optimizer steps of an epoch: where the head alone trains, and where more does.

        Images without labels change nothing but the features, so they do not make the head's epochs longer.
        """
        alone = self.loader.steps_per_pass
        batches = alone, self.stream.steps if self.stream else alone
        alone, more = (-(-each // self.settled.accumulate) for each in batches)
        return alone, more


@dataclass(frozen=True, slots=True)
class Decision:
    """What a decider came to; nothing where the recipe says it already."""

    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of the recipe
    note: str = ""  # what a person should know


def facts(model: nn.Module, group: Group) -> GroupFacts:
    """What planning has to know of a layer group."""
    parameters = dict(model.named_parameters())
    mine = [parameters[name] for name in group.parameters]
    return GroupFacts(
        name=group.name,
        params=layer_groups.parameter_count(model, group),
        undecayed=sum(tensor.numel() for tensor in mine if not decays(tensor)),
        has_norm=any(name.endswith("running_mean") for name in group.buffers),
    )
