"""What a stranger's config.json and metadata may claim about a model, and how much memory building it may take."""

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
MOST_LABEL = 10_000  # characters of a class's name
LARGEST_SIDE = 4096  # pixels of an input, as in a recipe
MOST_CHANNELS = 1024
LARGEST_ARGUMENT = 10**7  # number in `model_args`: no layer is so wide and no network so deep
MOST_ARGUMENTS = 1000  # values in `model_args`, lists counted by what they hold
ROOM = 64 << 20  # bytes that building a model may take beyond eight times its file

_ARCHITECTURE = re.compile(r"[A-Za-z0-9_]+\Z")
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "lanczos3", "random")
_CROPS = ("center", "squash", "border")
# What `timm.create_model` and its builder take for themselves: other files, other sources, other kinds of model.
_RESERVED = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "pretrained_model_args", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
    "feature_cfg", "feature_cls", "out_indices", "kwargs_filter", "model_cls", "model_cfg", "device", "dtype",
}  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """Read a timm model's config.json, as far as zoo and timm act on it.

    Raises:
        OSError: It cannot be read, or is larger than 16 MiB.
        ValueError: It is not JSON, or claims something that no model has; the message says what.
    """
    config = parse_json(read_bytes(path, CONFIG_LIMIT))
    if not isinstance(config, dict):
        raise ValueError("it must be a mapping")
    if not isinstance(config.get("architecture"), str) or not _ARCHITECTURE.match(config["architecture"]):
        raise ValueError(f"`architecture` is {_short(config.get('architecture'))}, which is no architecture's name")
    described = config.get("pretrained_cfg", config)
    if not isinstance(described, dict) or not isinstance(config.get("zoo", {}), dict):
        raise ValueError("`pretrained_cfg` and `zoo` must be mappings")
    check_arguments(config.get("model_args", {}))
    for place in (config, described):
        check_facts(place)
        for key in ("label_names", "labels", "label_descriptions"):
            check_labels(place.get(key))
    check_tasks(config, described)
    return config


def check_tasks(config: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Refuse tasks that are none, or are not about the outputs that the head has.

    Raises:
        ValueError: The message says why.
    """
    tasks = read_tasks(config)
    if not tasks:
        return
    outputs = config.get("num_classes", described.get("num_classes"))
    answered = sum(task.outputs for task in tasks)
    if answered != outputs:
        raise ValueError(f"`zoo.tasks` is about {answered:,} outputs, and the head has {_short(outputs)}")
    for task in tasks:
        check_labels([task.name, *task.classes])


def read_tasks(config: Mapping[str, Any]) -> tuple[Task, ...]:
    """What a config.json says that the model answers; nothing where each image is of one class.

    Raises:
        ValueError: That is not what tasks look like.
    """
    found = config.get("zoo", {}).get("tasks") or []
    if not isinstance(found, list) or len(found) > MOST_TASKS:
        raise ValueError(f"`zoo.tasks` must be a list of at most {MOST_TASKS} tasks")
    tasks = tuple(Task.from_record(record) for record in found)
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError("`zoo.tasks` names one task twice")
    return tasks


def check_arguments(arguments: Any) -> None:
    """Refuse arguments for building a model that are not plain, or that are timm's own.

    Raises:
        ValueError: The message says which.
    """
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
            elif not (
                item is None or isinstance(item, bool | str) or (is_finite(item) and abs(item) <= LARGEST_ARGUMENT)
            ):
                raise ValueError(f"`model_args.{name}` is {_short(item)}")
            if left < 0:
                raise ValueError(f"`model_args` holds more than {MOST_ARGUMENTS:,} values")


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse classes, sizes and preprocessing that no model has.

    Raises:
        ValueError: The message says which.
    """
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
        if values is None:
            continue
        if (
            not isinstance(values, list | tuple)
            or not 1 <= len(values) <= MOST_CHANNELS
            or not all(map(is_finite, values))
        ):
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
    """Refuse class names that are not texts.

    Raises:
        ValueError: The message says what they are.
    """
    if labels is None:
        return
    names = list(labels.values()) if isinstance(labels, dict) else labels
    if not isinstance(names, list | tuple) or len(names) > MOST_CLASSES:
        raise ValueError("the class names must be a list or a mapping")
    for name in names:
        if not isinstance(name, str) or len(name) > MOST_LABEL:
            raise ValueError(f"a class is named {_short(name)}; a name is a text of at most {MOST_LABEL:,} characters")


class BuildBudget(TorchDispatchMode):
    """Refuse, while a model is built, to make more tensors than it can need.

    A few characters in a config.json make a network of any width and depth. What is asked for is known before memory
    is taken: torch tells this class first.

    Args:
        stored: Bytes of the model's file, which a network cannot exceed by much: numbers of two bytes become four, and
            it is built twice where its head is not in the file.

    Raises:
        RuntimeError: The network would be larger.
    """

    def __init__(self, stored: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = 8 * stored + ROOM
        self._left = self._limit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a call is about to make."""
        kwargs = kwargs or {}
        needed = _bytes_of(func, args, kwargs)
        if needed:
            self._left -= needed
            if self._left < 0:
                raise RuntimeError(
                    f"a network of these settings takes more than {self._limit / 1e9:.1f} GB, far beyond its file"
                )
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: Any, kwargs: Any) -> int:
    """Bytes that a call makes: by a size, by a number of steps, or by spreading shapes over one another."""
    name = func._schema.name.partition("::")[2]
    each = (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
    place = next((place for place, one in enumerate(func._schema.arguments) if one.name == "size"), None)
    if place is not None and not name.startswith(("view", "_unsafe_view", "expand", "as_strided", "_reshape_alias")):
        size = args[place] if place < len(args) else kwargs.get("size") or ()
        return math.prod(size) * each if isinstance(size, list | tuple) else 0
    if name in ("arange", "linspace", "logspace", "eye"):
        numbers = [abs(value) for value in (*args, *kwargs.values()) if is_finite(value)]
        count = max(numbers, default=0)
        return int(count * min(numbers, default=0) if name == "eye" else count) * each
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
