"""Features: what goes into a network's classifier. The only place that says how they are had.

Two ways, which differ where a network has two classifiers (distilled ones): `look` catches what the first one is given
in an ordinary pass, as a loss needs it; the others ask timm's `forward_head` for it, which is the mean of both.
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
    """What the network makes of some images."""

    features: torch.Tensor  # (B, D) float32: what goes into the classifier
    logits: torch.Tensor  # (B, C) float32

    @property
    def probabilities(self) -> torch.Tensor:
        """(B, C)."""
        return self.logits.softmax(1)


def extract(network: Any, images: torch.Tensor) -> torch.Tensor:
    """What goes into the classifier, in the network's own shape and type, without computing logits."""
    found: torch.Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    return found


def extract_with_logits(network: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same and the logits, from one pass through the body."""
    maps = network.forward_features(images)
    return network.forward_head(maps, pre_logits=True), network.forward_head(maps)


def flat(features: torch.Tensor) -> torch.Tensor:
    """Features as rows (B, D) in float32: some networks keep two axes of size 1."""
    return features.float().flatten(1)


def look(network: nn.Module, images: torch.Tensor) -> Seen:
    """One pass of images through a network, with what goes into its classifier.

    Raises:
        RecipeError: The network does not say what its classifier is.
    """
    caught: list[torch.Tensor] = []
    hook = classifier_of(network).register_forward_pre_hook(lambda _module, given: caught.append(given[0]))
    try:
        logits = network(images)
    finally:
        hook.remove()
    return Seen(flat(caught[0]), logits.float())


def classifier_of(network: Any) -> nn.Module:
    """The module that makes logits of features.

    Raises:
        RecipeError: The network does not say what it is.
    """
    found = network.get_classifier() if hasattr(network, "get_classifier") else None
    found = found[0] if isinstance(found, tuple | list) else found  # distilled ones have two
    if not isinstance(found, nn.Module) or isinstance(found, nn.Identity):
        raise RecipeError(
            f"{type(network).__name__} does not say what its classifier is, so its features cannot be had",
            fix="take another backbone, or leave --align and --semi away",
        )
    return found


@torch.no_grad()
def width(network: nn.Module, size: tuple[int, int, int], device: torch.device) -> int:
    """How many features go into a network's classifier."""
    with evaluating(network):
        return look(network, torch.zeros(1, *size, device=device)).features.shape[1]
