"""Layer groups for architectures that no manifest describes, from what the timm model says about itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_Key = tuple[float, ...]
_PREVIOUS = 99999.0  # timm's matchers end a key with it to mean "as the group before"
_NORM_NAME = re.compile(r"(?:.*Norm(?:Act)?(?:[123]d)?(?:Fast)?(?:Fp32)?|EvoNorm\w*|FilterResponseNorm\w*|Affine)\Z")
_Found = tuple[str, tuple[str, ...], tuple[str, ...]]  # name, parameters, buffers


def derive(model: nn.Module) -> tuple[_Found, ...]:
    """Group a timm model's tensors in forward order.

    Rules, in this order: the modules that `pretrained_cfg["classifier"]` names are `head`; `group_matcher(coarse=True)`
    gives the groups of the rest, and what it leaves out is `neck`, just before the head; a model without a matcher
    falls into its top-level children in call order. A norm joins the group of the convolution before it, a tensor that
    several groups share joins the earliest, and a buffer follows its module.

    Args:
        model: A timm model; the meta device will do.

    Returns:
        (name, parameter names, buffer names) per group; each tensor in exactly one, and no group without tensors.
    """
    heads = _head_prefixes(model)
    head_tensors = {name for name, _ in _tensors(model) if name.startswith(heads)} if heads else set()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in head_tensors]
    matcher = _matcher(model)
    order = _by_matcher(names, matcher) if matcher is not None else _by_children(model, names)
    neck, head = 10**6, 10**6 + 1
    index = {name: order.get(name, neck) for name in names}
    index.update(dict.fromkeys(head_tensors, head))
    _norm_with_convolution(model, index, head)
    _share(model, index)
    parameters = {name: index[name] for name, _ in model.named_parameters()}
    buffers = {name: _buffer_group(name, index, parameters) for name, _ in model.named_buffers()}
    members: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for group in sorted({*parameters.values(), *buffers.values()}):
        members[group] = (
            tuple(name for name, owner in parameters.items() if owner == group),
            tuple(name for name, owner in buffers.items() if owner == group),
        )
    labels = _labels({group: inside or kept for group, (inside, kept) in members.items()}, {neck: "neck", head: "head"})
    return tuple((labels[group], inside, kept) for group, (inside, kept) in members.items())


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises activations: torch's own layers, timm's, and their relatives by name.

    A block that merely contains a normalisation (`ConvNormAct`) is not one.
    """
    if isinstance(
        module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.LocalResponseNorm
    ):
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
    found = getter() if callable(getter) else None
    wanted = {id(module) for module in (found if isinstance(found, list | tuple) else (found,))}
    return tuple(name for name, module in model.named_modules() if id(module) in wanted and name)


def call_order(model: nn.Module, paths: Iterable[str]) -> dict[str, int]:
    """When each module is first called in one forward pass; modules that are never called are left out.

    Args:
        model: A timm model, on one device (meta included). It runs once, on one blank image, in eval mode, and is
            given back in the mode it was in.
        paths: Module paths, as in `model.named_modules()`.
    """
    first: dict[str, int] = {}
    counter = iter(range(10**9))

    def hook(path: str) -> Callable[[nn.Module, Any], None]:
        def note(_module: nn.Module, _inputs: Any) -> None:
            first.setdefault(path, next(counter))

        return note

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
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


def _tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in classifier_names(model))


def _matcher(model: nn.Module) -> Any:
    """The model's coarse matcher, or None where it has none."""
    method = getattr(model, "group_matcher", None)
    if method is None:
        return None
    try:
        return method(coarse=True)
    except (NotImplementedError, AssertionError, TypeError):
        return None


def _by_matcher(names: Iterable[str], matcher: Any) -> dict[str, int]:
    """Group numbers from a timm matcher, a mapping of patterns or a function; names without a match are left out."""
    key_of = _keys_from_patterns(matcher) if isinstance(matcher, dict) else _keys_from_function(matcher)
    keys = {name: key for name in names if (key := key_of(name)) is not None}
    number = -1
    numbers: dict[_Key, int] = {}
    for key in sorted(set(keys.values())):
        if number < 0 or key[-1] != _PREVIOUS:
            number += 1
        numbers[key] = number
    return {name: numbers[key] for name, key in keys.items()}


def _keys_from_patterns(matcher: dict[str, Any]) -> Callable[[str], _Key | None]:
    compiled: list[tuple[re.Pattern[str], int, tuple[float, ...]]] = []
    for ordinal, specification in enumerate(matcher.values()):
        if specification is None:
            continue
        rows = specification if isinstance(specification, list | tuple) else [(specification, None)]
        compiled += [(re.compile(pattern), ordinal, tuple(suffix or ())) for pattern, suffix in rows]

    def key(name: str) -> _Key | None:
        for pattern, ordinal, suffix in compiled:
            found = pattern.match(name)
            if found:
                captured = [float(value) for value in found.groups() if value is not None]
                return (float(ordinal), *captured, *suffix)
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
        if isinstance(child, nn.Sequential | nn.ModuleList) and any(True for _ in child.parameters()):
            paths += [f"{name}.{index}" for index, _ in child.named_children()]
        elif any(True for _ in child.parameters()):
            paths.append(name)
    called = call_order(model, paths)
    ordered = sorted((path for path in paths if path in called), key=lambda path: called[path])
    numbers: dict[str, int] = {}
    for name in names:
        owner = next((number for number, path in enumerate(ordered) if name.startswith(f"{path}.")), None)
        if owner is not None:
            numbers[name] = owner
        elif "." not in name:  # a parameter of the model itself, such as a position embedding, enters at the start
            numbers[name] = 0
    return numbers


def _norm_with_convolution(model: nn.Module, index: dict[str, int], head: int) -> None:
    """Move a norm into the group of the convolution that feeds it, where a matcher has parted the two.

    Only direct neighbours in one container with equal channel counts are a pair: a norm that opens a block belongs
    to what follows it.
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
    """The group of the nearest enclosing module that has parameters; `index` knows the head's own buffers."""
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
    """Names that a person can type: the shortest module path that tells a group's tensors from all others'."""
    every = [(name, group) for group, names in members.items() for name in names]

    def alone(path: str, group: int) -> bool:
        return all(owner == group for name, owner in every if name.startswith(f"{path}."))

    labels: dict[int, str] = {}
    for number, (group, names) in enumerate(members.items()):
        parts = _main_path(names, of_all=number == 0)
        paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        fallback = "stem" if number == 0 else names[0].rpartition(".")[0] or f"group{number}"
        label = next((path for path in paths if alone(path, group)), fallback)
        taken = {*fixed.values(), *labels.values()}  # a module that an author calls "head" need not be the classifier
        labels[group] = fixed.get(group) or (label if label not in taken else f"{label}_{number}")
    return labels


def _main_path(names: tuple[str, ...], *, of_all: bool) -> list[str]:
    """The path that most (or all) of a group's tensors have in common, in its parts; empty where there is none."""
    paths = [name.split(".")[:-1] for name in names]
    tops = [path[0] for path in paths if path]
    main = max(dict.fromkeys(tops), key=tops.count, default="")
    if tops.count(main) < len(names) and (of_all or tops.count(main) * 2 <= len(names)):
        return []
    shared = []
    for parts in zip(*(path for path in paths if path[:1] == [main]), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared
