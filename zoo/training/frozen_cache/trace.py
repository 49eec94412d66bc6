"""Trace of one forward pass by hooks: which module is called when, its input and output sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.utils._pytree import tree_map

from zoo.models.layer_groups import is_norm
from zoo.training.products import Product


@dataclass(frozen=True, slots=True)
class TensorSizes:
    """A tensor's sizes, each a fixed number plus one per image of the batch."""

    fixed: tuple[int, ...]
    per_image: tuple[int, ...]
    dtype: torch.dtype

    def of(self, batch: int) -> tuple[int, ...]:
        """The sizes for a batch of this many images."""
        return tuple(fixed + each * batch for fixed, each in zip(self.fixed, self.per_image, strict=True))

    def joined(self, other: TensorSizes, few: int, more: int) -> TensorSizes:
        """The rule behind sizes at batches of `few` and of `more` images; raises ValueError if there is none."""
        each = tuple((right - left) // (more - few) for left, right in zip(self.fixed, other.fixed, strict=True))
        fixed = tuple(left - few * step for left, step in zip(self.fixed, each, strict=True))
        rule = TensorSizes(fixed, each, self.dtype)
        if rule.of(more) != other.fixed or any(left < 0 for left in rule.fixed):
            raise ValueError("the sizes do not follow the batch")
        return rule


@dataclass(slots=True)
class Call:
    """One call of one module."""

    path: str
    started: int  # counted over all starts and ends of calls
    shape: tuple[int, ...] | None  # of the first input, if that is a tensor
    ended: int = 0
    output: Any = None  # its tensors as `TensorSizes`


@dataclass(slots=True)
class Trace:
    """One forward pass."""

    calls: list[Call] = field(default_factory=list)  # in the order in which they start
    fed: dict[str, str] = field(default_factory=dict)  # norm -> the convolution whose untouched output it takes


def observe(model: nn.Module, images: torch.Tensor) -> Trace:
    """Run a model on (B, C, H, W) images once, in its current mode and without gradients, and record the calls."""
    trace = Trace()
    open_calls: list[Call] = []
    clock = iter(range(1 << 60))
    # A convolution's output, held so that its id is not used again, with its version: in-place changes raise it.
    produced: dict[int, tuple[str, torch.Tensor, int]] = {}

    def before(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tensor = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
        call = Call(path, next(clock), None if tensor is None else tuple(tensor.shape))
        trace.calls.append(call)
        open_calls.append(call)
        source = produced.get(id(tensor))
        if tensor is not None and source is not None and is_norm(module) and tensor._version == source[2]:
            trace.fed[path] = source[0]

    def after(path: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        call = open_calls.pop()
        call.ended, call.output = next(clock), tree_map(_sizes_of, output)
        if isinstance(module, nn.Conv2d) and isinstance(output, torch.Tensor):
            produced[id(output)] = (path, output, output._version)

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(before, path)))
        handles.append(module.register_forward_hook(partial(after, path)))
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def foldable(model: nn.Module, trace: Trace) -> tuple[tuple[str, str], ...]:
    """The paths of (convolution, norm) pairs that can be folded: the norm takes the convolution's unchanged output.

    Both are called just once, and the norm has stored statistics. Hooks cannot see whether anything else
    takes that output; comparing results does.
    """
    times = Counter(call.path for call in trace.calls)
    pairs = []
    for norm_path, path in trace.fed.items():
        convolution, norm = model.get_submodule(path), model.get_submodule(norm_path)
        plain = type(convolution) in (nn.Conv2d, Product)  # another kind may do something to its weight first
        known = type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)
        if plain and known and norm.running_mean is not None and times[path] == times[norm_path] == 1:
            pairs.append((path, norm_path))
    return tuple(pairs)


def _sizes_of(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return TensorSizes(tuple(leaf.shape), (0,) * leaf.ndim, leaf.dtype)
