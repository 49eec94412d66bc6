"""Split search: the module at which a network's frozen part ends.

One forward pass with hooks tells in which order modules are called. The first one with tensors of a group that trains,
or one shortly before it, is the *entry*: `zoo.training.frozen_cache.parts` splits the network there.

A shortcut around the entry, or dropout just before it, would be lost. So every split is checked: its outputs must equal
the network's own, in eval and in training mode, whatever the values of the parameters that train. If they do not, the
next earlier entry is tried.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from zoo.data.batches.views import restored_generators
from zoo.models.freezing import Freezer
from zoo.models.layer_groups import Group, added
from zoo.training.frozen_cache.parts import Cut
from zoo.training.frozen_cache.trace import Call, TensorSizes, foldable, observe
from zoo.training.seeds import seed_all

TRIES = 64  # entries that are tried, from the freeze boundary backwards
_FEW, _MORE = 2, 3  # images; the two tell which of a shape's sizes follow the batch


class Splitter:
    """Finds the cuts of one network for several phases and leaves it unchanged; `image` is (C, H, W)."""

    def __init__(self, model: nn.Module, groups: Sequence[Group], image: tuple[int, int, int]) -> None:
        self._model = _copied(model, copied=()).eval()
        self._groups = groups
        self._image = image
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(_MORE, *image, generator=generator).to(device, memory_format=torch.channels_last)
        self._images = images[:_FEW]
        trace = observe(self._model, self._images)
        self._calls, self._pairs = trace.calls, foldable(self._model, trace)
        self._sizes = _sizes(self._calls, observe(self._model, images).calls)

    def split(self, frozen: Collection[str], fixed_norm: Collection[str] = ()) -> Cut | None:
        """The latest cut before everything that trains that changes no output; None if there is none.

        `frozen` are the groups that do not train, `fixed_norm` those that train but whose norms keep their statistics.
        """
        owner = self._owners()
        first = next((call for call in self._calls if self._trains_itself(call.path, owner, frozen)), None)
        if first is None or self._sizes is None:
            return None
        other = self._with_other_weights(frozen)
        expected = self._outputs(other, other, self._images, frozen, fixed_norm)
        tries = 0
        for call in reversed(self._calls[: self._calls.index(first) + 1]):
            if not any(owner[done.path] & set(frozen) for done in self._calls if done.ended < call.started):
                return None  # all that is frozen would be computed anyway
            cut = self._cut(call, owner, frozen)
            if cut is None:
                continue
            features = cut.prefix(self._model)(self._images)
            with contextlib.suppress(RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError):
                # What the network computes between its modules may not work on placeholders: then try an earlier entry.
                outputs = self._outputs(other, cut.suffix(other), features, frozen, fixed_norm)
                if all(map(_same, outputs, expected)):
                    return cut
            tries += 1
            if tries == TRIES:
                return None
        return None

    def _owners(self) -> dict[str, set[str]]:
        """The groups of each module's tensors, including those of its children."""
        named = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        group_of = {id(named[name]): group.name for group in self._groups for name in group.parameters + group.buffers}
        group_of |= {id(named[name]): group for name, group in added(self._model, self._groups).items()}
        return {
            path: {group_of[id(tensor)] for tensor in (*module.parameters(), *module.buffers())}
            for path, module in self._model.named_modules()
        }

    def _trains_itself(self, path: str, owner: Mapping[str, set[str]], frozen: Collection[str]) -> bool:
        """Whether a module wholly in groups that train has tensors of its own, not only in its children."""
        module = self._model.get_submodule(path)
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        return bool(own) and not owner[path] & set(frozen)

    def _cut(self, call: Call, owner: Mapping[str, set[str]], frozen: Collection[str]) -> Cut | None:
        """The cut at one call, or None if the network cannot be split there."""
        assert self._sizes is not None
        once = sum(other.path == call.path for other in self._calls) == 1
        if not once or call.shape is None or call.shape[0] != _FEW:
            return None
        late = {other.path for other in self._calls if other.ended >= call.started}
        placeholders: dict[str, Any] = {}
        for other in self._calls:
            inside = any(other.path.startswith(f"{path}.") for path in placeholders)
            if other.path not in late and not inside and other.path in self._sizes:
                placeholders[other.path] = self._sizes[other.path]
        around = {other.path for other in self._calls if other.started <= call.started <= other.ended}
        after = {group for path in late - around | {call.path} for group in owner[path]}
        recomputed = tuple(group.name for group in self._groups if group.name in after & set(frozen))
        name = next(group.name for group in self._groups if group.name in after)
        folds = tuple(pair for pair in self._pairs if not {*pair} & late)
        return Cut(call.path, name, self._image, call.shape[1:], MappingProxyType(placeholders), folds, recomputed)

    def _with_other_weights(self, frozen: Collection[str]) -> nn.Module:
        """A copy with other values in everything that trains: what comes before a cut must not depend on them."""
        trained = [name for group in self._groups if group.name not in frozen for name in group.parameters]
        other = _copied(self._model, copied=trained)
        named = {**dict(other.named_parameters()), **dict(other.named_buffers())}
        statistics = [name for group in self._groups if group.name not in frozen for name in group.buffers
                      if name.endswith(("running_mean", "running_var"))]  # fmt: skip
        for name in (*trained, *statistics):
            tensor = named[name].data
            tensor.mul_(1.02)
            (tensor[..., ::2] if tensor.ndim else tensor).add_(0.01)
        for module in other.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.momentum = 0.0  # one check must not move the statistics that the next one uses
        return other

    @torch.no_grad()
    def _outputs(
        self,
        model: nn.Module,
        network: nn.Module,
        inputs: torch.Tensor,
        frozen: Collection[str],
        fixed_norm: Collection[str],
    ) -> list[torch.Tensor]:
        """Outputs in eval and in training mode, with the same random numbers each time."""
        network.eval()
        evaluated = network(inputs)
        Freezer(model, self._groups, frozen, fixed_norm).train()
        with restored_generators():
            seed_all(0, "split")
            trained = network(inputs)
        return [*tree_leaves(evaluated), *tree_leaves(trained)]


def _copied(model: nn.Module, copied: Collection[str]) -> nn.Module:
    """A copy with its own buffers and the named parameters; it shares the memory of the other parameters."""
    shared = {name: parameter for name, parameter in model.named_parameters() if name not in set(copied)}
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in shared.values()
    }
    return copy.deepcopy(model, memo)


def _sizes(few: Sequence[Call], more: Sequence[Call]) -> dict[str, Any] | None:
    """Each module's output sizes, by path, if they are the same at every call; None if calls depend on the batch."""
    if [call.path for call in few] != [call.path for call in more]:
        return None

    def joined(left: Any, right: Any) -> Any:
        return left.joined(right, _FEW, _MORE) if isinstance(left, TensorSizes) else left

    known: dict[str, Any] = {}
    unclear: set[str] = set()
    for left, right in zip(few, more, strict=True):
        try:
            sizes = tree_map(joined, left.output, right.output)
        except ValueError:
            unclear.add(left.path)
            continue
        if known.setdefault(left.path, sizes) != sizes:
            unclear.add(left.path)
    return {path: sizes for path, sizes in known.items() if path not in unclear}


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit on the CPU; elsewhere kernels may sum in another order."""
    if left.device.type == "cpu":
        return torch.equal(left, right)
    return left.shape == right.shape and torch.allclose(left, right, rtol=1e-4, atol=1e-5)
