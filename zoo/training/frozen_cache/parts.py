"""Prefix and suffix of a network split at an entry module, without changing the network.

The **prefix** is the network up to the entry: it runs, and the entry's input is caught. The **suffix** is the network
from there on: a shallow copy of its tree of modules in which the largest modules that finish before the entry is called
return placeholders of the right shape at no cost, and the entry takes the cached features. Whatever the network
computes between its modules (position embeddings added, tokens reshaped) thus runs on placeholders, and its result is
dropped at the entry. All other modules are the very same objects: parameters, optimizer and average, freezing and saved
states are the network's own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from zoo.models.freezing import evaluating
from zoo.training.frozen_cache.trace import TensorSizes


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to split a network, as plain values: it applies to every copy of the network."""

    entry: str  # path of the module whose input is cached
    group: str  # first layer group that is not wholly before it
    image: tuple[int, int, int]  # (C, H, W) of the images
    shape: tuple[int, ...]  # of one image's features
    placeholders: Mapping[str, Any]  # path -> sizes of what the module returns
    folds: tuple[tuple[str, str], ...]  # (convolution, norm) before the entry that can be folded into one
    recomputed: tuple[str, ...]  # frozen groups with modules after the entry

    def prefix(self, model: nn.Module, parts: Mapping[nn.Module, nn.Module] | None = None) -> Prefix:
        """The network up to the entry; `parts` replace some of its modules."""
        return Prefix(model, self, parts or {})

    def suffix(self, model: nn.Module) -> Suffix:
        """The network from the entry on."""
        return Suffix(model, self)


class Prefix:
    """The first part of a network, in eval mode and without gradients."""

    def __init__(self, model: nn.Module, cut: Cut, parts: Mapping[nn.Module, nn.Module]) -> None:
        self._model = model
        entry = model.get_submodule(cut.entry)
        with evaluating(model):  # copies of containers take their mode with them
            self._network, _ = graft(model, {**parts, entry: _with_forward(entry, _catch)})

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) images -> (B, ...) features at the entry."""
        with evaluating(self._model):
            try:
                self._network(images)
            except _Caught as caught:
                features: torch.Tensor = caught.args[0]
                return features
        raise RuntimeError("the entry was not reached")


class Suffix(nn.Module):
    """The second part of a network: (B, ...) features to (B, classes) logits.

    Its modules are the network's own, and so is its mode: `train` and `eval` set the network's.
    """

    def __init__(self, model: nn.Module, cut: Cut) -> None:
        super().__init__()
        self._image = cut.image
        self._feed = _Feed()
        self._model = (model,)  # in a tuple, so that it is not registered a second time
        parts = {
            model.get_submodule(path): _stub(model.get_submodule(path), sizes, self._feed)
            for path, sizes in cut.placeholders.items()
        }
        entry = model.get_submodule(cut.entry)
        parts[entry] = _with_forward(entry, partial(_enter, entry, self._feed))
        self.network, self._copies = graft(model, parts)

    def forward(self, features: torch.Tensor) -> Any:
        """The logits of the whole network for the images that the features are from."""
        for clone, original in self._copies:
            clone.training = original.training
        image = features.new_zeros(()).expand(len(features), *self._image)
        with self._feed.holding(features):
            return self.network(image)

    def train(self, mode: bool = True) -> Suffix:
        """Set the mode of the whole network."""
        self._model[0].train(mode)
        self.training = mode
        return self


def graft(
    model: nn.Module, parts: Mapping[nn.Module, nn.Module]
) -> tuple[nn.Module, list[tuple[nn.Module, nn.Module]]]:
    """Returns a network with some modules replaced, all others shared, and (copy, original) pairs of its containers."""
    done = dict(parts)
    copies: list[tuple[nn.Module, nn.Module]] = []

    def visit(module: nn.Module) -> nn.Module:
        if module in done:
            return done[module]
        children = {name: child if child is None else visit(child) for name, child in module._modules.items()}
        if all(children[name] is child for name, child in module._modules.items()):
            done[module] = module
            return module
        clone = copy.copy(module)
        clone.__dict__["_modules"] = children
        done[module] = clone
        copies.append((clone, module))
        return clone

    return visit(model), copies


class _Caught(Exception):
    """Ends the prefix's forward pass; its argument is the entry's input."""


class _Feed:
    """The features of the suffix's current forward pass."""

    value: torch.Tensor | None = None

    @contextlib.contextmanager
    def holding(self, value: torch.Tensor) -> Iterator[None]:
        self.value = value
        try:
            yield
        finally:
            self.value = None


def _catch(value: torch.Tensor, *_rest: Any, **_named: Any) -> None:
    raise _Caught(value)


def _enter(entry: nn.Module, feed: _Feed, _placeholder: Any, *rest: Any, **named: Any) -> Any:
    return entry(feed.value, *rest, **named)


def _stub(module: nn.Module, sizes: Any, feed: _Feed) -> nn.Module:
    """A copy of a module that returns placeholders."""

    def placeholder(leaf: Any) -> Any:
        if not isinstance(leaf, TensorSizes):
            return leaf
        assert feed.value is not None
        zero = torch.zeros((), dtype=leaf.dtype, device=feed.value.device)
        return zero.expand(leaf.of(len(feed.value)))

    return _with_forward(module, lambda *_inputs, **_named: tree_map(placeholder, sizes))


def _with_forward(module: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    clone = copy.copy(module)
    clone.__dict__["forward"] = forward
    return clone
