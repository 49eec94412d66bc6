"""Derived layer groups, from the timm model itself, for architectures without groups in a manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import nn

_Key = tuple[float, ...]
_PREVIOUS = 99999.0  # ends a key of timm's matchers that means "the group before"
_NORM_NAME = re.compile(r"(?:.*Norm(?:Act)?(?:[123]d)?(?:Fast)?(?:Fp32)?|EvoNorm\w*|FilterResponseNorm\w*|Affine)\Z")
_Members = tuple[str, tuple[str, ...], tuple[str, ...]]  # name, parameters, buffers


def derive(model: nn.Module) -> tuple[_Members, ...]:
    """Group a timm model's tensors in forward order; the meta device will do.

    Rules, in this order: the modules that `pretrained_cfg["classifier"]` names are `head`; `group_matcher(coarse=True)`
    gives the other groups, and tensors that it leaves out are `neck`, just before the head; without a matcher, the
    groups are the top-level children in call order. A norm joins the group of the convolution before it, a tensor that
    several groups share joins the earliest, and a buffer follows its module.

    Returns (name, parameter names, buffer names) per group: each tensor in exactly one, no group without tensors.
    """
    heads = tuple(f"{name}." for name in classifier_names(model))
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    names = [name for name in every if not name.startswith(heads)]
    every += [name for name, _ in model.named_buffers(remove_duplicate=False)]
    matcher = _matcher(model)
    order = _by_matcher(names, matcher) if matcher is not None else _by_children(model, names)
    neck, head = 10**6, 10**6 + 1
    index = {name: order.get(name, neck) for name in names}
    index.update({name: head for name in every if name.startswith(heads)})
    _norm_with_convolution(model, index, head)
    _share(model, index)
    parameters = {name: index[name] for name, _ in model.named_parameters()}
    buffers = {name: _buffer_group(name, index, parameters) for name, _ in model.named_buffers()}
    members = {
        group: [tuple(name for name, owner in owners.items() if owner == group) for owners in (parameters, buffers)]
        for group in sorted({*parameters.values(), *buffers.values()})
    }
    labels = _labels({group: own or others for group, (own, others) in members.items()}, {neck: "neck", head: "head"})
    return tuple((labels[group], own, others) for group, (own, others) in members.items())


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises activations: torch's layers, timm's, and others by name; no block around one."""
    norms = nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.LocalResponseNorm
    if isinstance(module, norms):
        return True
    if not _NORM_NAME.match(type(module).__name__):
        return False
    # A composite such as PreNorm or ConvNormAct has a weight that mixes channels; a normalisation has none.
    return not any(isinstance(child, nn.Linear | nn.modules.conv._ConvNd) for child in module.modules())


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """The module paths of a model's classifier: what `pretrained_cfg` names, else what `get_classifier()` returns."""
    declared = getattr(model, "pretrained_cfg", {}).get("classifier")
    if declared:
        names = (declared,) if isinstance(declared, str) else tuple(declared)
        present = dict(model.named_modules())
        return tuple(name for name in names if name in present)
    getter = getattr(model, "get_classifier", None)
    classifier = getter() if callable(getter) else None
    heads = {id(module) for module in (classifier if isinstance(classifier, list | tuple) else (classifier,))}
    return tuple(name for name, module in model.named_modules() if id(module) in heads and name)


def call_order(model: nn.Module, paths: Iterable[str]) -> dict[str, int]:
    """The place of each module's first call in one forward pass, without modules that are never called.

    The model, on one device (meta included), runs once in eval mode on one blank image and returns to its own mode.
    `paths` are as in `model.named_modules()`.
    """
    first: dict[str, int] = {}

    def note(path: str, _module: nn.Module, _inputs: Any) -> None:
        first.setdefault(path, len(first))

    handles = [model.get_submodule(path).register_forward_pre_hook(partial(note, path)) for path in paths]
    was_training = [module for module in model.modules() if module.training]
    tensor = next(model.parameters())
    size = getattr(model, "pretrained_cfg", {}).get("input_size") or (3, 224, 224)
    channels = getattr(model, "in_chans", size[0])
    image = torch.zeros(1, channels, *size[1:], device=tensor.device, dtype=tensor.dtype)
    try:
        model.eval()
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
        for module in was_training:
            module.training = True
    return first


def _matcher(model: nn.Module) -> Any:
    """The model's coarse matcher, or None."""
    method: Any = getattr(model, "group_matcher", None)
    with suppress(NotImplementedError, AssertionError, TypeError):
        return method(coarse=True) if method else None
    return None


def _by_matcher(names: Iterable[str], matcher: Any) -> dict[str, int]:
    """Group numbers from a timm matcher, a mapping of patterns or a function; names without a match are left out."""
    key_of = _keys_from_patterns(matcher) if isinstance(matcher, dict) else _keys_from_function(matcher)
    keys = {name: key for name in names if (key := key_of(name)) is not None}
    number = -1
    numbers: dict[_Key, int] = {}
    for key in sorted(set(keys.values())):
        number += number < 0 or key[-1] != _PREVIOUS
        numbers[key] = number
    return {name: numbers[key] for name, key in keys.items()}


def _keys_from_patterns(matcher: dict[str, Any]) -> Callable[[str], _Key | None]:
    compiled: list[tuple[re.Pattern[str], int, tuple[float, ...]]] = []
    for ordinal, specification in enumerate(matcher.values()):
        if specification is not None:
            rows = specification if isinstance(specification, list | tuple) else [(specification, None)]
            compiled += [(re.compile(pattern), ordinal, tuple(suffix or ())) for pattern, suffix in rows]

    def key(name: str) -> _Key | None:
        for pattern, ordinal, suffix in compiled:
            if match := pattern.match(name):
                return (float(ordinal), *(float(value) for value in match.groups() if value is not None), *suffix)
        return None

    return key


def _keys_from_function(matcher: Callable[[str], Any]) -> Callable[[str], _Key | None]:
    def key(name: str) -> _Key | None:
        value = matcher(name)
        values = tuple(value) if isinstance(value, Iterable) else (value,)
        if any(part is None or part == float("inf") for part in values):
            return None
        return tuple(float(part) for part in values)

    return key


def _by_children(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Group numbers of top-level children in call order; a sequence of stages counts as its members."""
    paths: list[str] = []
    for name, child in model.named_children():
        if any(True for _ in child.parameters()):
            stages = isinstance(child, nn.Sequential | nn.ModuleList)
            paths += [f"{name}.{index}" for index, _ in child.named_children()] if stages else [name]
    ordered = list(call_order(model, paths))
    numbers: dict[str, int] = {}
    for name in names:
        owner = next((number for number, path in enumerate(ordered) if name.startswith(f"{path}.")), None)
        if owner is not None:
            numbers[name] = owner
        elif "." not in name:  # a parameter of the model itself, such as a position embedding, enters at the start
            numbers[name] = 0
    return numbers


def _norm_with_convolution(model: nn.Module, index: dict[str, int], head: int) -> None:
    """Move a norm into the group of the convolution that feeds it, if a matcher has separated the two.

    Only neighbours in one container with equal channel counts are a pair: a norm that opens a block belongs to it.
    """
    for path, parent in model.named_modules():
        before: tuple[str, nn.Module] | None = None
        for name, child in parent.named_children():
            below = f"{path}.{name}" if path else name
            own = [f"{below}.{tensor}" for tensor, _ in child.named_parameters(recurse=False)]
            if before is not None and is_norm(child) and own:
                convolution_path, convolution = before
                channels = getattr(convolution, "out_channels", None)
                width = next(child.parameters(recurse=False)).numel()
                group = index.get(f"{convolution_path}.weight")
                if channels == width and group is not None and group != head:
                    index.update(dict.fromkeys(own, group))
            if any(True for _ in child.parameters()):
                before = (below, child) if isinstance(child, nn.modules.conv._ConvNd) else None


def _share(model: nn.Module, index: dict[str, int]) -> None:
    """Give a tensor that has several names the earliest of their groups."""
    earliest: dict[int, int] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        earliest[id(tensor)] = min(earliest.get(id(tensor), index[name]), index[name])
    for name, tensor in model.named_parameters(remove_duplicate=False):
        index[name] = earliest[id(tensor)]


def _buffer_group(buffer: str, index: dict[str, int], parameters: dict[str, int]) -> int:
    """The group of the nearest enclosing module that has parameters; `index` has the head's buffers."""
    if buffer in index:
        return index[buffer]
    path = buffer
    while path:
        path = path.rpartition(".")[0]
        prefix = f"{path}." if path else ""
        own = [owner for name, owner in parameters.items() if name.rpartition(".")[0] == path]
        inside = own or [owner for name, owner in parameters.items() if name.startswith(prefix)]
        if inside:
            return min(inside)
    return 0


def _labels(members: dict[int, tuple[str, ...]], fixed: dict[int, str]) -> dict[int, str]:
    """Names that a user can type: the shortest module path that only a group's own tensors have."""
    every = [(name, group) for group, names in members.items() for name in names]

    def alone(path: str, group: int) -> bool:
        return all(owner == group for name, owner in every if name.startswith(f"{path}."))

    labels: dict[int, str] = {}
    for number, (group, names) in enumerate(members.items()):
        parts = _main_path(names, of_all=number == 0)
        paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        fallback = "stem" if number == 0 else names[0].rpartition(".")[0] or f"group{number}"
        label = next((path for path in paths if alone(path, group)), fallback)
        taken = {*fixed.values(), *labels.values()}  # a module named "head" need not be the classifier
        labels[group] = fixed.get(group) or (label if label not in taken else f"{label}_{number}")
    return labels


def _main_path(names: tuple[str, ...], *, of_all: bool) -> list[str]:
    """The parts of the path that most (or all) of a group's tensors have in common; empty if there is none."""
    paths = [name.split(".")[:-1] for name in names]
    tops = [path[0] for path in paths if path]
    main = max(dict.fromkeys(tops), key=tops.count, default="")
    if tops.count(main) < len(names) and (of_all or tops.count(main) * 2 <= len(names)):
        return []
    parts = zip(*(path for path in paths if path[:1] == [main]), strict=False)
    return [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
