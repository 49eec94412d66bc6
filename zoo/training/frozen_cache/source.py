"""What a phase trains on: batches, the network that they go through, and how a candidate is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from zoo.data import Batch
from zoo.recipes.plan import CachePlan
from zoo.training.collect import Outputs
from zoo.training.frozen_cache.feature_file import Layout
from zoo.training.frozen_cache.parts import Cut


@dataclass(frozen=True, slots=True)
class Source:
    """Images and the whole network; or kept activations and the part of the network above them."""

    network: nn.Module  # takes a batch's `images`, gives (B, classes) logits
    epoch: Callable[[int, int], Iterator[Batch]]  # the batches of an epoch of the run, from a step on
    evaluate: Callable[[nn.Module], Outputs]  # the whole network (or its average) over the choosing images


@dataclass(frozen=True, slots=True)
class Option:
    """How a phase could train from kept activations."""

    cut: Cut  # where the network is split
    layout: Layout  # of one image's activations
    plan: CachePlan
    missing: int  # images that have to go through the frozen part first; those on the disk need not
    most: int = 1  # views that would be kept of each training image, were there epochs enough
