"""Features: the input of a network's classifier; the only place that extracts them.

There are two ways, which differ for a distilled network, which has two classifiers: `look` catches the input of the
first one in an ordinary pass, as a loss needs it; the others call timm's `forward_head`, which averages both inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zoo.errors import RecipeError
from zoo.models.freezing import evaluating


@dataclass(frozen=True, slots=True)
class Seen:
    """A network's features and logits of a batch."""

    features: torch.Tensor  # (B, D) float32: the classifier's input
    logits: torch.Tensor  # (B, C) float32

    @property
    def probabilities(self) -> torch.Tensor:
        """Of the classes, (B, C)."""
        return self.logits.softmax(1)


def extract(network: Any, images: torch.Tensor) -> torch.Tensor:
    """The classifier's input, in the network's own shape and type, without computing logits."""
    features: torch.Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    return features


def extract_with_logits(network: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of `extract` and the logits (B, C), from one pass through the body."""
    maps = network.forward_features(images)
    return network.forward_head(maps, pre_logits=True), network.forward_head(maps)


def flat(features: torch.Tensor) -> torch.Tensor:
    """Features as rows (B, D) in float32: some networks keep two axes of size 1."""
    return features.float().flatten(1)


def look(network: nn.Module, images: torch.Tensor) -> Seen:
    """Features and logits of images (B, C, H, W) from one pass; RecipeError if the network names no classifier."""
    caught: list[torch.Tensor] = []
    hook = classifier_of(network).register_forward_pre_hook(lambda _module, given: caught.append(given[0]))
    try:
        logits = network(images)
    finally:
        hook.remove()
    return Seen(flat(caught[0]), logits.float())


def classifier_of(network: Any) -> nn.Module:
    """The module that makes logits from features; RecipeError if the network does not say which it is."""
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None
    classifier = classifier[0] if isinstance(classifier, tuple | list) else classifier  # distilled networks have two
    if not isinstance(classifier, nn.Module) or isinstance(classifier, nn.Identity):
        what = f"{type(network).__name__} does not say what its classifier is, so its features cannot be extracted"
        raise RecipeError(what, fix="take another backbone, or leave --align and --semi away")
    return classifier


@torch.no_grad()
def width(network: nn.Module, size: tuple[int, int, int], device: torch.device) -> int:
    """The number of features of a network."""
    with evaluating(network):
        return look(network, torch.zeros(1, *size, device=device)).features.shape[1]
