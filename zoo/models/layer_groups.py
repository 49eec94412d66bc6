"""Layer groups: every parameter and buffer in exactly one, ordered from input to head; and freezing them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from zoo.errors import PluginError
from zoo.models import derived_groups as matching
from zoo.models.derived_groups import is_norm as is_norm  # part of this module's interface
from zoo.models.spec import BackboneSpec

_SHOWN = 5  # names that an error message lists


@dataclass(frozen=True, slots=True)
class Group:
    """One layer group of a built model."""

    name: str  # "stem", "layer1", …, "head"
    parameters: tuple[str, ...]  # as in model.named_parameters(), registration order
    buffers: tuple[str, ...]  # as in model.named_buffers(), also those that a checkpoint leaves out


def assign(model: nn.Module, spec: BackboneSpec) -> tuple[Group, ...]:
    """Put every parameter and buffer of a model into exactly one layer group.

    A spec that declares groups is matched by its regular expressions, at the start of the tensor's name. One that does
    not gets them from what the architecture itself says (`zoo.models.derived_groups`).

    Args:
        model: A model of `spec.arch`, with any head; the meta device will do.
        spec: Its backbone.

    Returns:
        The groups in forward order. None is empty, except a declared `head` on a model without classes.

    Raises:
        PluginError: A tensor matches no declared group or two of them, or a declared group matches nothing; the
            message lists the names.
    """
    if not spec.groups:
        return tuple(Group(*found) for found in matching.derive(model))
    parameters = [name for name, _ in model.named_parameters()]
    buffers = [name for name, _ in model.named_buffers()]
    patterns = [(group.name, re.compile(group.match)) for group in spec.groups]
    owner: dict[str, str] = {}
    unmatched: list[str] = []
    twice: list[str] = []
    for name in (*parameters, *buffers):
        hits = [group for group, pattern in patterns if pattern.match(name)]
        if not hits:
            unmatched.append(name)
        elif len(hits) > 1:
            twice.append(f"{name} ({' and '.join(hits)})")
        else:
            owner[name] = hits[0]
    used = set(owner.values())
    headless = getattr(model, "num_classes", None) == 0
    unused = [name for name, _ in patterns if name not in used and not (headless and name == "head")]
    if not unmatched and not twice and not unused:
        return tuple(
            Group(
                name,
                tuple(tensor for tensor in parameters if owner[tensor] == name),
                tuple(tensor for tensor in buffers if owner[tensor] == name),
            )
            for name, _ in patterns
        )
    faults = []
    if unmatched:
        faults.append(f"in no group: {_listing(unmatched)}")
    if twice:
        faults.append(f"in two groups: {_listing(twice)}")
    if unused and not twice:
        faults.append(f"groups that match nothing: {_listing(unused)}")
    raise PluginError(
        f"the layer groups of {spec.full_name} do not fit the architecture {spec.arch}",
        why="; ".join(faults),
        fix=f"correct `groups` in the manifest of {spec.distribution} {spec.version}, or write to its authors",
    )


def parameter_count(model: nn.Module, group: Group) -> int:
    """The number of scalars in a group's parameters, buffers not counted."""
    parameters = dict(model.named_parameters())
    return sum(parameters[name].numel() for name in group.parameters)


class Freezer:
    """Holds frozen groups still: no gradients, and their modules in eval mode whenever the rest trains.

    `requires_grad=False` alone would leave batch norm statistics moving and dropout active. A module without tensors
    of its own (dropout, activation) goes with the group around it, or else with the next sibling that has tensors.

    Args:
        model: The model that will train; `requires_grad` of all its parameters is set here.
        groups: All groups of the model, from `assign`.
        frozen: Names of the groups that do not train.
        fixed_norm: Names of groups that train, but whose norm layers keep their stored statistics.

    Raises:
        ValueError: A name is not one of the groups'.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        frozen: Collection[str],
        fixed_norm: Collection[str] = (),
    ) -> None:
        known = {group.name for group in groups}
        unknown = sorted((set(frozen) | set(fixed_norm)) - known)
        if unknown:
            raise ValueError(f"no layer group named {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
        self._model = model
        group_of = {name: group.name for group in groups for name in (*group.parameters, *group.buffers)}
        held = frozenset(frozen)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(group_of[name] not in held)
        self._still = tuple(_whole_modules(model, group_of, held))
        fixed = frozenset(fixed_norm) - held
        self._norms = tuple(
            module
            for path, module in model.named_modules()
            if is_norm(module) and fixed & {group_of[name] for name in _names_below(group_of, path)}
        )

    def train(self) -> None:
        """Put the model in training mode, except for what is frozen or fixed. Call it before every epoch."""
        self._model.train()
        for module in (*self._still, *self._norms):
            module.eval()


def _whole_modules(model: nn.Module, group_of: dict[str, str], held: frozenset[str]) -> Iterator[nn.Module]:
    """The largest modules that belong to held groups altogether."""

    def visit(module: nn.Module, path: str) -> Iterator[nn.Module]:
        touched = {group_of[name] for name in _names_below(group_of, path)}
        if touched and touched <= held:
            yield module
            return
        if not touched & held:
            return
        children = list(module.named_children())
        paths = [f"{path}.{name}" if path else name for name, _ in children]
        owners = [{group_of[name] for name in _names_below(group_of, below)} for below in paths]
        for index, ((_, child), below) in enumerate(zip(children, paths, strict=True)):
            if owners[index]:
                yield from visit(child, below)
                continue
            after = next((owner for owner in owners[index + 1 :] if owner), None)
            before = next((owner for owner in reversed(owners[:index]) if owner), None)
            neighbour = after or before
            if neighbour and neighbour <= held:
                yield child

    yield from visit(model, "")


def _names_below(group_of: dict[str, str], path: str) -> list[str]:
    """The tensors of a module and of everything inside it."""
    return [name for name in group_of if name.startswith(f"{path}.")] if path else list(group_of)


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def fingerprint(model: nn.Module, groups: Sequence[Group]) -> str:
    """The sha256 of all tensors of some groups: names, shapes, types and bits."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    digest = hashlib.sha256()
    for group in groups:
        for name in (*group.parameters, *group.buffers):
            plain = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}{tuple(plain.shape)}{plain.dtype}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
