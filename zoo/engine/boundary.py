"""Where a network's frozen part ends, and the network split there, without tracing and without touching the network.

One forward pass with hooks tells in which order modules are called. The first one with tensors of a group that trains,
or one shortly before it, is the *entry*. The **prefix** is the network up to there: it runs, and the entry's input is
caught. The **suffix** is the network from there on: a shallow copy of its tree of modules in which the largest modules
that finish before the entry is called return placeholders of the right shape at no cost, and the entry takes the kept
activations. Whatever the network computes between its modules (position embeddings added, tokens reshaped) thus runs on
placeholders, and its result is dropped at the entry. All other modules are the very same objects: parameters, optimizer
and average, freezing and saved states are the network's own.

A shortcut around the entry, or dropout just before it, would be lost that way. So every split is checked: its outputs
must be the network's own, in evaluation and in training, whatever the values of the parameters that train. One that is
not gives way to the next earlier one that is.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from zoo.data.transforms import generators_kept
from zoo.engine.randomness import seed_all
from zoo.engine.trace import Call, Sizes, foldable, observe
from zoo.groups import Freezer, Group

TRIES = 64  # entries that are tried, from the freeze boundary backwards
_FEW, _MORE = 2, 3  # images; the two tell which of a shape's sizes follow the batch


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where a network can be split, as plain values: it serves every copy of the network."""

    entry: str  # path of the module whose input is kept
    group: str  # first layer group that is not wholly before it
    image: tuple[int, int, int]  # (C, H, W) of the images
    shape: tuple[int, ...]  # of one image's activations
    placeholders: Mapping[str, Any]  # path -> sizes of what the module returns
    folds: tuple[tuple[str, str], ...]  # (convolution, norm) before the entry that can be folded into one
    recomputed: tuple[str, ...]  # frozen groups of which something comes after the entry

    def prefix(self, model: nn.Module, parts: Mapping[nn.Module, nn.Module] | None = None) -> Prefix:
        """The network up to the entry; `parts` stand in for some of its modules."""
        return Prefix(model, self, parts or {})

    def suffix(self, model: nn.Module) -> Suffix:
        """The network from the entry on."""
        return Suffix(model, self)


class Prefix:
    """The first part of a network, in evaluation and without gradients. Made by `Cut.prefix`."""

    def __init__(self, model: nn.Module, cut: Cut, parts: Mapping[nn.Module, nn.Module]) -> None:
        self._model = model
        entry = copy.copy(model.get_submodule(cut.entry))
        _set_forward(entry, _catch)
        with evaluating(model):  # copies of containers take their mode with them
            self._network, _ = graft(model, {**parts, model.get_submodule(cut.entry): entry})

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Activations at the entry.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, …), of the cut's shape.
        """
        with evaluating(self._model):
            try:
                self._network(images)
            except _Caught as caught:
                return caught.value
        raise RuntimeError("the entry was not reached")


class Suffix(nn.Module):
    """The second part of a network: (B, …) activations to (B, classes) logits. Made by `Cut.suffix`.

    Its modules are the network's own, and so is its mode: `train` and `eval` are the network's.
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
        parts[entry] = copy.copy(entry)
        _set_forward(parts[entry], partial(_enter, entry, self._feed))
        self.network, self._copies = graft(model, parts)

    def forward(self, activations: torch.Tensor) -> Any:
        """Logits, as the whole network would give them for the images that the activations are of."""
        for clone, original in self._copies:
            clone.training = original.training
        image = activations.new_zeros(()).expand(len(activations), *self._image)
        with self._feed.holding(activations):
            return self.network(image)

    def train(self, mode: bool = True) -> Suffix:
        """Set the mode of the whole network."""
        self._model[0].train(mode)
        self.training = mode
        return self


class Splitter:
    """Finds the cuts of one network for several phases; the network itself is left untouched.

    Args:
        model: The network.
        groups: Its layer groups.
        image: (C, H, W) of the images.
    """

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
        """The latest place before everything that trains where splitting changes nothing; None if there is none.

        Args:
            frozen: Names of the groups that do not train.
            fixed_norm: Names of groups that train, but whose norms keep their statistics.
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
                return None  # nothing frozen would be left out any more
            cut = self._cut(call, owner, frozen)
            if cut is None:
                continue
            kept = cut.prefix(self._model)(self._images)
            with contextlib.suppress(RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError):
                # What the network does between its modules may not work on placeholders: then this is no place.
                found = self._outputs(other, cut.suffix(other), kept, frozen, fixed_norm)
                if all(map(_same, found, expected)):
                    return cut
            tries += 1
            if tries == TRIES:
                return None
        return None

    def _owners(self) -> dict[str, set[str]]:
        """The groups of each module's tensors, those inside it included."""
        named = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        group_of = {id(named[name]): group.name for group in self._groups for name in group.parameters + group.buffers}
        return {
            path: {group_of[id(tensor)] for tensor in (*module.parameters(), *module.buffers())}
            for path, module in self._model.named_modules()
        }

    def _trains_itself(self, path: str, owner: Mapping[str, set[str]], frozen: Collection[str]) -> bool:
        """Whether a module wholly in groups that train has tensors of its own, not only inside its children."""
        module = self._model.get_submodule(path)
        own = next(module.parameters(recurse=False), None) is not None
        own = own or next(module.buffers(recurse=False), None) is not None
        return own and not owner[path] & set(frozen)

    def _cut(self, call: Call, owner: Mapping[str, set[str]], frozen: Collection[str]) -> Cut | None:
        """What splitting at one call would be, or None where it cannot."""
        assert self._sizes is not None
        once = sum(other.path == call.path for other in self._calls) == 1
        if not once or call.shape is None or call.shape[0] != _FEW:
            return None
        late = {other.path for other in self._calls if other.ended >= call.started}
        taken: dict[str, Any] = {}
        for other in self._calls:
            inside = any(other.path.startswith(f"{path}.") for path in taken)
            if other.path not in late and not inside and other.path in self._sizes:
                taken[other.path] = self._sizes[other.path]
        around = {other.path for other in self._calls if other.started <= call.started <= other.ended}
        after = {group for path in late - around | {call.path} for group in owner[path]}
        recomputed = tuple(group.name for group in self._groups if group.name in after & set(frozen))
        name = next(group.name for group in self._groups if group.name in after)
        folds = tuple(pair for pair in self._pairs if not {*pair} & late)
        return Cut(call.path, name, self._image, call.shape[1:], MappingProxyType(taken), folds, recomputed)

    def _with_other_weights(self, frozen: Collection[str]) -> nn.Module:
        """A copy in which everything that trains has other values: what comes before a cut must not depend on them."""
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
        """What a network says in evaluation and in training, with the same random numbers each time."""
        network.eval()
        evaluated = network(inputs)
        Freezer(model, self._groups, frozen, fixed_norm).train()
        with generators_kept():
            seed_all(0, "split")
            trained = network(inputs)
        return [*tree_leaves(evaluated), *tree_leaves(trained)]


def split(
    model: nn.Module,
    groups: Sequence[Group],
    frozen: Collection[str],
    image: tuple[int, int, int],
    fixed_norm: Collection[str] = (),
) -> Cut | None:
    """The latest place before everything that trains where splitting changes nothing; see `Splitter`."""
    return Splitter(model, groups, image).split(frozen, fixed_norm)


def graft(
    model: nn.Module, parts: Mapping[nn.Module, nn.Module]
) -> tuple[nn.Module, list[tuple[nn.Module, nn.Module]]]:
    """A network in which some modules are others, and which shares all the rest with the original.

    Returns:
        The new network, and the (copy, original) pairs of the containers that had to be copied.
    """
    made = dict(parts)
    copies: list[tuple[nn.Module, nn.Module]] = []

    def visit(module: nn.Module) -> nn.Module:
        if module in made:
            return made[module]
        children = {name: child if child is None else visit(child) for name, child in module._modules.items()}
        if all(children[name] is child for name, child in module._modules.items()):
            made[module] = module
            return module
        clone = copy.copy(module)
        clone.__dict__["_modules"] = children
        made[module] = clone
        copies.append((clone, module))
        return clone

    return visit(model), copies


def _copied(model: nn.Module, copied: Collection[str]) -> nn.Module:
    """A copy that has buffers of its own and of the parameters only those named; the others share their memory."""
    shared = {name: parameter for name, parameter in model.named_parameters() if name not in set(copied)}
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in shared.values()
    }
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, and every module back into the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class _Caught(Exception):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


class _Feed:
    """The activations that a suffix works on at the moment."""

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
    """A module that looks like another one, and returns placeholders."""
    stub = copy.copy(module)

    def forward(*_inputs: Any, **_named: Any) -> Any:
        assert feed.value is not None
        value = feed.value

        def placeholder(leaf: Any) -> Any:
            if not isinstance(leaf, Sizes):
                return leaf
            zero = torch.zeros((), dtype=leaf.dtype, device=value.device)
            return zero.expand(leaf.of(len(value)))

        return tree_map(placeholder, sizes)

    _set_forward(stub, forward)
    return stub


def _set_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    module.__dict__["forward"] = forward


def _sizes(few: Sequence[Call], more: Sequence[Call]) -> dict[str, Any] | None:
    """What each module returns, by its path, where that is the same at every call; None: calls depend on the batch."""
    if [call.path for call in few] != [call.path for call in more]:
        return None
    found: dict[str, Any] = {}
    torn: set[str] = set()
    for left, right in zip(few, more, strict=True):
        try:
            sizes = tree_map(partial(_joined, few=_FEW, more=_MORE), left.output, right.output)
        except ValueError:
            torn.add(left.path)
            continue
        if found.setdefault(left.path, sizes) != sizes:
            torn.add(left.path)
    return {path: sizes for path, sizes in found.items() if path not in torn}


def _joined(left: Any, right: Any, *, few: int, more: int) -> Any:
    return left.joined(right, few, more) if isinstance(left, Sizes) else left


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit on the CPU; elsewhere kernels may add up in another order."""
    if left.device.type == "cpu":
        return torch.equal(left, right)
    return left.shape == right.shape and torch.allclose(left, right, rtol=1e-4, atol=1e-5)
