"""What every side reads alike: the weights' own facts, the reported images, and how many of them a model gets right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn


def facts(weights: str) -> dict[str, Any]:
    """Mean, standard deviation and model arguments that a weights file says it needs."""
    with safe_open(weights, "pt") as file:
        said = file.metadata()
    return {
        "mean": tuple(json.loads(said["mean"])),
        "std": tuple(json.loads(said["std"])),
        "model_args": json.loads(said.get("model_args", "{}")),
    }


def pretrained(job: Mapping[str, Any], classes: int) -> Any:  # a module with what timm gives it
    """The architecture with the given weights and a new head, as plain timm makes it."""
    tensors = load_file(job["weights"])
    model = timm.create_model(job["arch"], num_classes=classes, **facts(job["weights"])["model_args"])
    head = model.pretrained_cfg["classifier"]
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{head}.")}
    missing = set(model.state_dict()) - set(body)
    assert missing == {f"{head}.weight", f"{head}.bias"}, missing
    model.load_state_dict(body, strict=False)
    return model


@torch.inference_mode()
def right(model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[int, int]:
    """Images whose most probable class is right, and all images; the modules' modes stay as they are."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    device = next(model.parameters()).device
    hits = count = 0
    for images, labels in batches:
        hits += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
        count += len(labels)
    for module, training in modes:
        module.training = training
    return hits, count
