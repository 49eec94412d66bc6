"""Layer groups: every parameter and buffer in exactly one, ordered from input to head."""

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
        return tuple(Group(*found) for found in derived_groups.derive(model))
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


def added(model: nn.Module, groups: Sequence[Group]) -> dict[str, str]:
    """The group of each parameter and buffer that no group declares: that of the module around it.

    What was added to a convolution goes with that convolution. Where a module is in several groups, it is the last.
    """
    group_of = {name: group.name for group in groups for name in (*group.parameters, *group.buffers)}
    tensors = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    return {name: _around(name, group_of) for name in tensors if name not in group_of}


def _around(name: str, group_of: dict[str, str]) -> str:
    path, inside = name, list[str]()
    while path and not inside:
        path = path.rpartition(".")[0]
        inside = [group for other, group in group_of.items() if not path or other.startswith(f"{path}.")]
    return inside[-1]


def parameter_count(model: nn.Module, group: Group) -> int:
    """The number of scalars in a group's parameters, buffers not counted."""
    parameters = dict(model.named_parameters())
    return sum(parameters[name].numel() for name in group.parameters)


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def fingerprint(model: nn.Module, groups: Sequence[Group], start: str = "") -> str:
    """The sha256 of all tensors of some groups: names, shapes, types and bits; `start` is hashed before them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    digest = hashlib.sha256(start.encode())
    for group in groups:
        for name in (*group.parameters, *group.buffers):
            plain = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}{tuple(plain.shape)}{plain.dtype}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
