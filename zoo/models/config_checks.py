"""Limits for downloaded models: the claims of a config.json or metadata, and the memory that building takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.base.untrusted import CONFIG_LIMIT, is_finite, parse_json, read_bytes
from zoo.tasks.schema import Task

MOST_CLASSES = 1_000_000
MOST_TASKS = 1000
MOST_LABEL = 10_000  # characters of a class name
LARGEST_SIDE = 4096  # pixels of an input, as in a recipe
MOST_CHANNELS = 1024
LARGEST_ARGUMENT = 10**7  # in `model_args`: no layer is as wide and no network as deep
MOST_ARGUMENTS = 1000  # values in `model_args`, those inside lists included
MARGIN = 64 << 20  # bytes that building a model may take beyond eight times its file

_ARCHITECTURE = re.compile(r"[A-Za-z0-9_]+\Z")
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "lanczos3", "random")
_CROPS = ("center", "squash", "border")
# Arguments of `timm.create_model` and its builder for other files, sources and kinds of model.
_RESERVED = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "pretrained_model_args", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
    "feature_cfg", "feature_cls", "out_indices", "kwargs_filter", "model_cls", "model_cfg", "device", "dtype",
}  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """Read a timm model's config.json and check all that zoo and timm use.

    Raises OSError if it cannot be read or is larger than 16 MiB; ValueError if it is not JSON or describes no model.
    """
    config = parse_json(read_bytes(path, CONFIG_LIMIT))
    if not isinstance(config, dict):
        raise ValueError("it must be a mapping")
    if not isinstance(config.get("architecture"), str) or not _ARCHITECTURE.match(config["architecture"]):
        raise ValueError(
            f"`architecture` is {_short(config.get('architecture'))}, which is not the name of an architecture"
        )
    described = config.get("pretrained_cfg", config)
    if not isinstance(described, dict) or not isinstance(config.get("zoo", {}), dict):
        raise ValueError("`pretrained_cfg` and `zoo` must be mappings")
    check_arguments(config.get("model_args", {}))
    for place in (config, described):
        check_facts(place)
        for key in ("label_names", "labels", "label_descriptions"):
            check_labels(place.get(key))
    if tasks := read_tasks(config):
        count, outputs = sum(task.outputs for task in tasks), config.get("num_classes", described.get("num_classes"))
        if count != outputs:
            raise ValueError(f"`zoo.tasks` is about {count:,} outputs, and the head has {_short(outputs)}")
        for task in tasks:
            check_labels([task.name, *task.classes])
    return config


def read_tasks(config: Mapping[str, Any]) -> tuple[Task, ...]:
    """The tasks in a config.json; none if each image is of one class. Raises ValueError if they are malformed."""
    records = config.get("zoo", {}).get("tasks") or []
    if not isinstance(records, list) or len(records) > MOST_TASKS:
        raise ValueError(f"`zoo.tasks` must be a list of at most {MOST_TASKS} tasks")
    tasks = tuple(map(Task.from_record, records))
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError("`zoo.tasks` names one task twice")
    return tasks


def check_arguments(arguments: Any) -> None:
    """Raise ValueError if a model's arguments are not plain values, or are timm's own."""
    if not isinstance(arguments, Mapping):
        raise ValueError("`model_args` must be a mapping")
    left = MOST_ARGUMENTS
    for name, value in arguments.items():
        if name in _RESERVED:
            raise ValueError(f"`model_args` names {name!r}, which is not a property of a network")
        waiting = [value]
        while waiting:
            item = waiting.pop()
            left -= 1
            if isinstance(item, dict | list | tuple):
                waiting += item.values() if isinstance(item, dict) else item
            elif not (isinstance(item, bool | str | None) or (is_finite(item) and abs(item) <= LARGEST_ARGUMENT)):
                raise ValueError(f"`model_args.{name}` is {_short(item)}")
            if left < 0:
                raise ValueError(f"`model_args` holds more than {MOST_ARGUMENTS:,} values")


def check_facts(facts: Mapping[str, Any]) -> None:
    """Raise ValueError for a class count, size or preprocessing that no model has."""
    classes = facts.get("num_classes")
    if classes is not None and not (_is_whole(classes) and 0 <= classes <= MOST_CLASSES):
        raise ValueError(f"`num_classes` is {_short(classes)}; at most {MOST_CLASSES:,} are possible")
    for key in ("input_size", "test_input_size", "min_input_size"):
        size = facts.get(key)
        if size is not None and not (
            isinstance(size, list | tuple)
            and len(size) == 3
            and all(_is_whole(side) and side >= 1 for side in size)
            and size[0] <= MOST_CHANNELS
            and max(size[1:]) <= LARGEST_SIDE
        ):
            raise ValueError(f"`{key}` is {_short(size)}; at most {LARGEST_SIDE} x {LARGEST_SIDE} pixels are possible")
    for key in ("mean", "std"):
        values = facts.get(key)
        if values is not None:
            listed = isinstance(values, list | tuple) and 1 <= len(values) <= MOST_CHANNELS
            if not listed or not all(map(is_finite, values)):
                raise ValueError(f"`{key}` is {_short(values)}, not a number for each channel")
            if key == "std" and min(values) <= 0:
                raise ValueError(f"`std` is {_short(values)}; a deviation is above 0")
    for key in ("crop_pct", "test_crop_pct"):
        share = facts.get(key)
        if share is not None and not (is_finite(share) and 0.05 <= share <= 20):
            raise ValueError(f"`{key}` is {_short(share)}; it is a share of about 1")
    for key, known in (("interpolation", _INTERPOLATIONS), ("crop_mode", _CROPS)):
        if facts.get(key) is not None and facts[key] not in known:
            raise ValueError(f"`{key}` is {_short(facts[key])}, not one of {', '.join(known)}")
    if facts.get("license") is not None and not isinstance(facts["license"], str):
        raise ValueError(f"`license` is {_short(facts['license'])}, not a text")


def check_labels(labels: Any) -> None:
    """Raise ValueError if class names are not a list or mapping of short texts."""
    if labels is None:
        return
    names = list(labels.values()) if isinstance(labels, dict) else labels
    if not isinstance(names, list | tuple) or len(names) > MOST_CLASSES:
        raise ValueError("the class names must be a list or a mapping")
    for name in names:
        if not isinstance(name, str) or len(name) > MOST_LABEL:
            raise ValueError(f"a class is named {_short(name)}; a name is a text of at most {MOST_LABEL:,} characters")


class BuildBudget(TorchDispatchMode):
    """Raise RuntimeError, before memory is taken, if building a model makes far more tensors than its file holds.

    A few characters in a config.json make a network of any width and depth. It cannot exceed the `stored` bytes of its
    file by much: numbers of two bytes become four, and it is built twice if its head is not in the file.
    """

    def __init__(self, stored: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = self._left = 8 * stored + MARGIN

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the bytes that a call is about to make."""
        kwargs = kwargs or {}
        self._left -= _bytes_of(func, args, kwargs)
        if self._left < 0:
            size = f"{self._limit / 1e9:.1f} GB"
            raise RuntimeError(f"a network of these settings takes more than {size}, far beyond its file")
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: Any, kwargs: Any) -> int:
    """Bytes that a call makes: by its size, its number of steps, or by broadcasting."""
    name = func._schema.name.partition("::")[2]
    each = (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
    place = next((place for place, one in enumerate(func._schema.arguments) if one.name == "size"), None)
    if place is not None and not name.startswith(("view", "_unsafe_view", "expand", "as_strided", "_reshape_alias")):
        size = args[place] if place < len(args) else kwargs.get("size") or ()
        return math.prod(size) * each if isinstance(size, list | tuple) else 0
    if name in ("arange", "linspace", "logspace", "eye"):
        numbers = [abs(value) for value in (*args, *kwargs.values()) if is_finite(value)]
        return int(max(numbers, default=0) * (min(numbers, default=0) if name == "eye" else 1)) * each
    if name == "repeat":
        return int(args[0].nbytes * math.prod(args[1]))
    shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
    if len(shapes) < 2 or name.endswith("_"):
        return 0
    try:
        return math.prod(torch.broadcast_shapes(*shapes)) * each  # type: ignore[no-untyped-call]
    except RuntimeError:
        return 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
