"""Rows of a linear head: a task's unit put into them, and one task's of several alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from zoo.errors import RunError
from zoo.models.derived_groups import classifier_names
from zoo.tasks import kinds
from zoo.tasks.schema import Task, spans


def layers(model: nn.Module) -> list[nn.Module]:
    """The linear layers whose outputs are the model's: one, or as many as a distilled model averages.

    Raises:
        RunError: The model's head is not a linear layer.
    """
    network: Any = model
    found = [model.get_submodule(name) for name in classifier_names(model)]
    for layer in found:
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, torch.Tensor) or len(weight) != network.num_classes:
            raise RunError(
                f"the head of {type(model).__name__} is no linear layer",
                why="tasks share one head by its rows, and this one has none",
                fix="take another backbone",
            )
    if not found:
        raise RunError(f"{type(model).__name__} does not say what its head is", fix="take another backbone")
    return found


def require(model: nn.Module, tasks: Sequence[Task]) -> None:
    """Refuse a network that cannot answer these tasks.

    Labels of an image, or steps, that are the only task need no rows: any head will do.

    Raises:
        RunError: Its head is no linear layer; or it has no bias, which a quantity needs.
    """
    quantity = any(task.facts.scaled for task in tasks)
    if not quantity and len(tasks) < 2:
        return
    for layer in layers(model):
        if quantity and getattr(layer, "bias", None) is None:
            raise RunError(
                f"the head of {type(model).__name__} has no bias, so it cannot give a quantity in its own unit",
                fix="take another backbone",
            )


@torch.no_grad()
def put_scales(model: nn.Module, tasks: Sequence[Task]) -> None:
    """Make outputs that are quantities less their mean, in deviations, into quantities, by the head's own weights."""
    for span in spans(tasks):
        if span.task.facts.scaled:
            for layer in _tensors(model):
                kinds.of(span.task).edit_head(span.task, layer.weight[span.outputs], layer.bias[span.outputs])


@torch.no_grad()
def one_task(model: nn.Module, tasks: Sequence[Task], name: str) -> nn.Module:
    """A copy of a model whose head has the outputs of one task alone.

    Raises:
        RunError: The model's head is not a linear layer.
    """
    span = next(span for span in spans(tasks) if span.task.name == name)
    small: Any = copy.deepcopy(model)
    for layer in _tensors(small):  # cut in place: what else a head has, such as a norm, stays as it is
        layer.weight = nn.Parameter(layer.weight[span.outputs].clone())
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[span.outputs].clone())
        setattr(layer, "out_channels" if hasattr(layer, "out_channels") else "out_features", span.task.outputs)
    small.num_classes = span.task.outputs
    network: nn.Module = small.eval()
    return network


def _tensors(model: nn.Module) -> Iterator[Any]:
    """The layers, of which it is known that they have rows."""
    yield from layers(model)
