"""Conformance kit for plugin authors: checks that a backbone keeps the contracts that adaptation relies on.

from zoo import testing

def test_my_backbone():
    testing.assert_conforms("my_backbone")
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.errors import ZooError
from zoo.models import derived_groups, freezing, layer_groups, lookup, preprocessing, saved
from zoo.models.layer_groups import Group
from zoo.models.spec import BackboneSpec

_BATCH = 4
_CLASSES = 7  # unlike any pretrained head
_SHOWN = 5  # names that a failed check lists


class ConformanceError(AssertionError):
    """A backbone breaks its contract; the message lists every failed check."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str  # "partition", "forward order", …
    ok: bool
    detail: str = ""  # the fault, with the names of tensors or groups


def assert_conforms(name: str, *, numerics: bool = True) -> None:
    """Run every check on a backbone.

    Args:
        name: Any name that `zoo.models.lookup.get` takes.
        numerics: As for `check_backbone`.

    Raises:
        ConformanceError: A check failed.
    """
    failed = [check for check in check_backbone(name, numerics=numerics) if not check.ok]
    if failed:
        lines = "\n".join(f"  {check.name}: {check.detail}" for check in failed)
        raise ConformanceError(f"{name} fails {len(failed)} check(s)\n{lines}")


def check_backbone(name: str, numerics: bool = True) -> list[Check]:
    """Check one backbone against the contract of layer groups and of timm models.

    Args:
        name: Any name that `zoo.models.lookup.get` takes.
        numerics: Also build it with random weights, train a few steps and save it. Otherwise its tensors need no memory
            (meta device).

    Returns:
        One record per check, failed ones included; failures are not raised.
    """
    try:
        spec = lookup.get(name)
    except ZooError as error:
        return [Check("found", False, str(error))]
    try:
        with torch.device("meta"):
            model: Any = saved.build(spec, weights=None)
            count = sum(parameter.numel() for parameter in model.parameters())
            if model.num_classes == 0:  # weights without a classifier (DINOv2): adaptation gives it one
                model = saved.build(spec, weights=None, num_classes=_CLASSES)
        groups = layer_groups.assign(model, spec)
    except Exception as error:  # a plugin's own code runs here
        return [Check("builds", False, _named(error))]
    checks = [Check("builds", True), *_structure(model, spec, groups)]
    if spec.params is not None:
        fault = "" if count == spec.params else f"the manifest says {spec.params:,}, the model has {count:,}"
        checks.append(_check("parameter count", fault))
    return [*checks, *(_numerics(spec) if numerics else ())]


def _check(name: str, fault: str) -> Check:
    return Check(name, not fault, fault)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _structure(model: Any, spec: BackboneSpec, groups: tuple[Group, ...]) -> Iterator[Check]:
    """The checks that need no numbers."""
    owners: dict[str, list[str]] = {}
    for group in groups:
        for tensor in (*group.parameters, *group.buffers):
            owners.setdefault(tensor, []).append(group.name)
    tensors = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    wrong = [name for name in tensors if len(owners.get(name, [])) != 1] + sorted(set(owners) - set(tensors))
    yield _check("partition", f"not in exactly one group: {_some(wrong)}" if wrong else "")

    group_of = {tensor: names[0] for tensor, names in owners.items()}
    torn = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {group_of.get(f"{prefix}{name}") for name, _ in module.named_parameters(recurse=False)}
        buffers = {group_of.get(f"{prefix}{name}") for name, _ in module.named_buffers(recurse=False)}
        if len(own) == 1 and buffers - own:
            torn.append(path)
    yield _check("buffers follow their module", f"parted in {_some(torn)}" if torn else "")

    classifier = tuple(f"{name}." for name in derived_groups.classifier_names(model))
    expected = {name for name in tensors if name.startswith(classifier)} if classifier else set()
    last = groups[-1]
    head = {*last.parameters, *last.buffers}
    right = last.name == "head" and head == expected
    yield _check("head", "" if right else f"the last group is {last.name} with {_some(sorted(head))}")

    try:
        yield from _flow(model, spec, groups, group_of)
    except Exception as error:  # the model's own forward runs here
        yield _check("forward order", f"the forward pass fails on one image: {_named(error)}")


def _flow(model: Any, spec: BackboneSpec, groups: tuple[Group, ...], group_of: dict[str, str]) -> Iterator[Check]:
    """The checks that need one forward pass: the order of the groups, and which norm a convolution feeds."""
    owning = {path: name for path, name in _module_groups(model, group_of).items() if name is not None}
    fed: list[tuple[str, str]] = []
    produced: dict[int, tuple[str, torch.Tensor]] = {}  # holds the tensor, so that its id is not reused

    def before(path: str, module: nn.Module, inputs: Any) -> None:
        source = produced.get(id(inputs[0])) if inputs else None
        if source and layer_groups.is_norm(module):
            fed.append((source[0], path))

    def after(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            produced[id(output)] = (path, output)

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            handles.append(module.register_forward_hook(partial(after, path)))
        elif path in owning:
            handles.append(module.register_forward_pre_hook(partial(before, path)))
    try:
        called = derived_groups.call_order(model, owning)
    finally:
        for handle in handles:
            handle.remove()
    first: dict[str, int] = {}
    for path, moment in called.items():
        first[owning[path]] = min(moment, first.get(owning[path], moment))
    order = [group.name for group in groups if group.name in first]
    actual = sorted(order, key=lambda name: first[name])
    yield _check("forward order", "" if order == actual else f"declared {', '.join(order)}; called {', '.join(actual)}")

    parted = [
        f"{norm} is in {owning[norm]}, {convolution} in {owning[convolution]}"
        for convolution, norm in fed
        if owning.get(convolution) != owning.get(norm)
        # Without a manifest, a norm that opens the next block belongs to that block, whatever feeds it.
        and (spec.groups or convolution.rpartition(".")[0] == norm.rpartition(".")[0])
    ]
    yield _check("norm with its convolution", _some(parted))


def _module_groups(model: nn.Module, group_of: dict[str, str]) -> dict[str, str | None]:
    """The group of each module that has parameters of its own; None if they are in several groups."""
    result: dict[str, str | None] = {}
    for path, module in model.named_modules():
        names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
        own = {group_of[name] for name in names if name in group_of}
        if own and path:
            result[path] = own.pop() if len(own) == 1 else None
    return result


@dataclass(frozen=True, slots=True)
class _Bench:
    """The model of the numeric checks, made once: large ones are slow to initialise and to save."""

    spec: BackboneSpec
    model: Any  # random weights, `_CLASSES` classes
    images: torch.Tensor  # (4, 3, S, S), standard normal
    folder: Path  # the model as initialised, saved


def _numerics(spec: BackboneSpec) -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, images = _sample(spec)
            names = [f"class {index}" for index in range(model.num_classes)]
            config, requires = preprocessing.data_config(model), {"requires": saved.requires(spec)}
            saved.save(model, Path(folder), class_names=names, data_config=config, zoo=requires)
        except Exception as error:  # a plugin's own code runs here, and its failure is the result
            yield Check("runs", False, _named(error))
            return
        bench = _Bench(spec, model, images, Path(folder))
        for name, check in _NUMERICS.items():
            try:
                fault = check(bench)
            except Exception as error:  # as above
                fault = _named(error)
            yield _check(name, fault)


def _reloading(bench: _Bench) -> str:
    """Logits are the same after saving, and loading by timm from the folder."""
    images = bench.images[:2]
    before, after = _logits(bench.model, images), _logits(saved.load(bench.folder), images)
    return "" if torch.equal(before, after) else f"logits differ by {float((before - after).abs().max()):.3g}"


def _input_channels(bench: _Bench) -> str:
    """Weights for 3 input channels also load into models with 1 and 4."""
    weights = saved.resolve_weights(bench.spec, str(bench.folder))
    for channels in (1, 4):
        other = saved.build(bench.spec, weights=weights, num_classes=3, in_chans=channels)
        size = preprocessing.data_config(other).input_size
        if size[0] != channels:
            return f"built for {channels} channels, the preprocessing gives {size[0]}"
        shape = tuple(_logits(other, bench.images[:1, :1].repeat(1, channels, 1, 1)).shape)
        if shape != (1, 3):
            return f"{channels} channels give logits of shape {shape}"
    return ""


def _gradients(bench: _Bench) -> str:
    """With nothing frozen, every group gets finite gradients that are not all zero."""
    parameters = dict(bench.model.named_parameters())
    classifier = tuple(f"{name}." for name in derived_groups.classifier_names(bench.model))
    for name, parameter in parameters.items():
        # Some architectures start their classifier at zero, through which no gradient flows in the first step.
        if name.startswith(classifier) and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    bench.model.train()
    _loss(bench.model, bench.images).backward()  # type: ignore[no-untyped-call]
    for group in layer_groups.assign(bench.model, bench.spec):
        present = [gradient for name in group.parameters if (gradient := parameters[name].grad) is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in present):
            return f"{group.name} gets gradients that are not finite"
        if group.parameters and not any(bool(gradient.any()) for gradient in present):
            return f"no gradient reaches {group.name}"
    return ""


def _frozen(bench: _Bench) -> str:
    """Training steps keep the frozen groups' parameters and buffers bit-equal, and change the others."""
    model = bench.model
    groups = layer_groups.assign(model, bench.spec)
    held = [group.name for group in groups[: max(1, len(groups) // 2)]]
    freezer = freezing.Freezer(model, groups, held)
    tensors = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    model.zero_grad()
    live = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(live, lr=0.01)
    for _ in range(2):
        freezer.train()
        optimizer.zero_grad()
        _loss(model, bench.images).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for group in groups:
        moved = [name for name in (*group.parameters, *group.buffers) if not torch.equal(before[name], tensors[name])]
        if group.name in held and moved:
            return f"{group.name} is frozen, but these changed: {_some(moved)}"
        if group.name not in held and group.parameters and not moved:
            return f"{group.name} trains, but nothing in it changed"
    return ""


def _class_counts(bench: _Bench) -> str:
    """A new head gives the number of logits that it is made for."""
    for count in (_CLASSES + 4, 2):
        bench.model.reset_classifier(count)
        shape = tuple(_logits(bench.model, bench.images[:1]).shape)
        if shape != (1, count) or bench.model.num_classes != count:
            return f"asked for {count} classes, got logits of shape {shape}"
    return ""


# In this order: the first need the model as initialised, the last change it.
_NUMERICS: dict[str, Callable[[_Bench], str]] = {
    "save and reload": _reloading,
    "input channels": _input_channels,
    "gradients reach every group": _gradients,
    "frozen groups stay": _frozen,
    "class counts": _class_counts,
}


def _sample(spec: BackboneSpec) -> tuple[Any, torch.Tensor]:
    """A model with random weights, and the smallest images that it takes: (4, 3, S, S), standard normal."""
    torch.manual_seed(0)
    model: Any = saved.build(spec, weights=None, num_classes=_CLASSES)
    declared = preprocessing.data_config(model).input_size
    for size in (64, 96, 128):
        if size >= declared[-1] or _fixed(model):
            break
        images = torch.randn(_BATCH, declared[0], size, size)
        try:
            _logits(model, images[:1])
        except (RuntimeError, ValueError, AssertionError):
            continue  # too small for this architecture
        return model, images
    return model, torch.randn(_BATCH, *declared)


def _fixed(model: Any) -> bool:
    """Whether the model takes images of one size only."""
    try:
        preprocessing.data_config(model, image_size=preprocessing.data_config(model).input_size[-1] + 1)
    except ZooError:
        return True
    return False


def _logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(images)
    model.train(was_training)
    return logits


def _loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(images), torch.arange(len(images)) % _CLASSES)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
