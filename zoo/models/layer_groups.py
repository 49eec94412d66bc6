"""Layer groups: each parameter and buffer in exactly one, ordered from input to head."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from zoo.errors import PluginError
from zoo.models import derived_groups
from zoo.models.derived_groups import is_norm as is_norm  # part of this module's interface
from zoo.models.spec import BackboneSpec


@dataclass(frozen=True, slots=True)
class Group:
    """One layer group of a built model."""

    name: str  # "stem", "layer1", …, "head"
    parameters: tuple[str, ...]  # as in model.named_parameters(), registration order
    buffers: tuple[str, ...]  # as in model.named_buffers(), also those that a checkpoint leaves out


def assign(model: nn.Module, spec: BackboneSpec) -> tuple[Group, ...]:
    """Put each parameter and buffer of a model of `spec.arch` (the meta device will do) into exactly one layer group.

    The groups that the spec declares, matched at the start of a tensor's name, or else those that the architecture
    gives (`zoo.models.derived_groups`), in forward order. None is empty, except a declared `head` without classes.
    Raises PluginError, with the names, if a tensor matches no declared group or two, or a declared group no tensor.
    """
    if not spec.groups:
        return tuple(Group(*group) for group in derived_groups.derive(model))
    parameters = [name for name, _ in model.named_parameters()]
    buffers = [name for name, _ in model.named_buffers()]
    patterns = [(group.name, re.compile(group.match)) for group in spec.groups]
    hits = {name: [group for group, pattern in patterns if pattern.match(name)] for name in (*parameters, *buffers)}
    unmatched = [name for name, names in hits.items() if not names]
    twice = [f"{name} ({' and '.join(names)})" for name, names in hits.items() if len(names) > 1]
    used = {names[0] for names in hits.values() if len(names) == 1}
    headless = getattr(model, "num_classes", None) == 0
    unused = [name for name, _ in patterns if name not in used and not (headless and name == "head")]
    faults = [f"in no group: {listing(unmatched)}"] if unmatched else []
    faults += [f"in two groups: {listing(twice)}"] if twice else []
    faults += [f"groups that match nothing: {listing(unused)}"] if unused and not twice else []
    if faults:
        what = f"the layer groups of {spec.full_name} do not fit the architecture {spec.arch}"
        fix = f"correct `groups` in the manifest of {spec.distribution} {spec.version}, or write to its authors"
        raise PluginError(what, why="; ".join(faults), fix=fix)

    def members(group: str, tensors: list[str]) -> tuple[str, ...]:
        return tuple(name for name in tensors if hits[name] == [group])

    return tuple(Group(name, members(name, parameters), members(name, buffers)) for name, _ in patterns)


def added(model: nn.Module, groups: Sequence[Group]) -> dict[str, str]:
    """The group of each parameter and buffer that no group declares: that of the module around it.

    A tensor added to a convolution has the convolution's group. If a module is in several groups, the last one counts.
    """
    group_of = {name: group.name for group in groups for name in (*group.parameters, *group.buffers)}
    tensors = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    return {name: _around(name, group_of) for name in tensors if name not in group_of}


def _around(name: str, group_of: dict[str, str]) -> str:
    path, groups = name, list[str]()
    while path and not groups:
        path = path.rpartition(".")[0]
        groups = [group for other, group in group_of.items() if not path or other.startswith(f"{path}.")]
    return groups[-1]


def parameter_count(model: nn.Module, group: Group) -> int:
    """The number of scalars in a group's parameters, without its buffers."""
    parameters = dict(model.named_parameters())
    return sum(parameters[name].numel() for name in group.parameters)


def listing(names: Sequence[str], most: int = 5) -> str:
    """The first names for an error message, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def fingerprint(model: nn.Module, groups: Sequence[Group], start: str = "") -> str:
    """The sha256 of all tensors of some groups: names, shapes, types and bits; `start` is hashed before them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    digest = hashlib.sha256(start.encode())
    for group in groups:
        for name in (*group.parameters, *group.buffers):
            plain = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}{tuple(plain.shape)}{plain.dtype}".encode())
            # As bytes: numpy has no bfloat16.
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
