"""Rows of a linear head: scaled to a task's unit, or cut down to one task of several."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo.errors import RunError
from zoo.models.derived_groups import classifier_names
from zoo.tasks import kinds
from zoo.tasks.schema import Task, spans


def layers(model: Any) -> list[Any]:
    """The linear layers that make the model's outputs: one, or those that a distilled model averages.

    Raises RunError if the model's head is not a linear layer.
    """
    heads = [model.get_submodule(name) for name in classifier_names(model)]
    if not heads:
        raise RunError(f"{type(model).__name__} does not say what its head is", fix="take another backbone")
    for layer in heads:
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, torch.Tensor) or len(weight) != model.num_classes:
            what = f"the head of {type(model).__name__} is not a linear layer"
            why = "tasks share one head by its rows, and this one has none"
            raise RunError(what, why=why, fix="take another backbone")
    return heads


def require(model: nn.Module, tasks: Sequence[Task]) -> None:
    """Raise RunError if the head is not a linear layer, or has no bias, which a regression target needs.

    A single task of labels or levels needs no rows: any head will do.
    """
    scaled = any(task.facts.scaled for task in tasks)
    if scaled or len(tasks) > 1:
        for layer in layers(model):
            if scaled and getattr(layer, "bias", None) is None:
                why = "a regression target in its own unit needs one"
                raise RunError(f"the head of {type(model).__name__} has no bias", why=why, fix="take another backbone")


@torch.no_grad()
def put_scales(model: nn.Module, tasks: Sequence[Task]) -> None:
    """Undo the standardisation of regression targets in the head's weights, so that outputs have the targets' unit."""
    for span in spans(tasks):
        if span.task.facts.scaled:
            for layer in layers(model):
                kinds.of(span.task).edit_head(span.task, layer.weight[span.outputs], layer.bias[span.outputs])


@torch.no_grad()
def one_task(model: nn.Module, tasks: Sequence[Task], name: str) -> nn.Module:
    """A copy of a model, in eval mode, whose head has the outputs of one task alone; RunError as in `layers`."""
    span = next(span for span in spans(tasks) if span.task.name == name)
    small: Any = copy.deepcopy(model)
    for layer in layers(small):  # cut in place: other parts of a head, such as a norm, stay as they are
        layer.weight = nn.Parameter(layer.weight[span.outputs].clone())
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[span.outputs].clone())
        setattr(layer, "out_channels" if hasattr(layer, "out_channels") else "out_features", span.task.outputs)
    small.num_classes = span.task.outputs
    network: nn.Module = small.eval()
    return network
