"""Models and what is known about them: preprocessing, class names, saving and loading. Every one is a timm model."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from zoo.base import files
from zoo.errors import PluginError, RunError
from zoo.models import lookup
from zoo.models.build import build as build  # this and the next are part of this module's interface
from zoo.models.build import strictness
from zoo.models.config_checks import BuildBudget, read_config, read_tasks
from zoo.models.preprocessing import DataConfig, timm_data
from zoo.models.spec import BackboneSpec, Weights
from zoo.models.tensor_files import check_safetensors, os_error
from zoo.models.weights import resolve_weights as resolve_weights
from zoo.tasks.schema import Task, is_plain, one_class, pipeline, task_records


def labels(model: nn.Module, weights: Weights | None) -> tuple[str, ...]:
    """Class names of a model's pretrained head, in order.

    From the weights' own record, else the model's configuration, else ImageNet's where the head is one of ImageNet's;
    "class 0", "class 1", … where nobody says.
    """
    described: Any = model
    count, config = int(described.num_classes), described.pretrained_cfg
    declared = (weights.labels if weights else None) or config.get("label_names")
    if declared and len(declared) == count:
        return tuple(declared.values()) if isinstance(declared, dict) else tuple(declared)
    subset = timm_data.infer_imagenet_subset(model)
    if weights is not None and subset is not None and re.search(r"in(?:1k|12k|2[12]k)", weights.name):
        info = timm_data.ImageNetInfo(subset)
        synsets, names = info.label_names(), info.label_descriptions()
        # Two ImageNet classes may share a description ("crane"): the synset tells them apart.
        seen = {name for name in names if names.count(name) > 1} if count <= 1000 else set()
        return tuple(
            f"{name} ({synset})" if name in seen else name for name, synset in zip(names, synsets, strict=True)
        )
    return tuple(f"class {index}" for index in range(count))


def has_folded_norms(model: nn.Module) -> bool:
    """Whether every batch norm has running mean 0 and variance 1: its statistics were folded into convolutions.

    Such a checkpoint predicts well, but dies as soon as its norms train. A freshly initialised model looks the same:
    ask this about pretrained weights only.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    statistics = [(norm.running_mean, norm.running_var) for norm in norms]
    return bool(statistics) and all(
        mean is not None and variance is not None and not mean.any() and bool((variance == 1).all())
        for mean, variance in statistics
    )


def requires(spec: BackboneSpec) -> dict[str, str] | None:
    """What a saved model needs installed beside timm, for `save(…, zoo={"requires": …})`; None where timm is enough."""
    if spec.module is None:
        return None
    return {"distribution": spec.distribution, "version": spec.version, "module": spec.module}


def save(
    model: nn.Module,
    folder: Path,
    *,
    class_names: Sequence[str],
    data_config: DataConfig,
    zoo: dict[str, Any],
    tasks: Sequence[Task] = (),
) -> None:
    """Write `model.safetensors` and `config.json`, which timm (`local-dir:`, `hf-hub:`) and transformers load.

    Args:
        model: A timm model, in any memory format, on any device; it is not changed.
        folder: Where to; made if it is not there. A config.json that is there goes first, so that a half-written
            folder never looks whole.
        class_names: Names of the head's classes, in order.
        data_config: The preprocessing that the weights were trained for.
        zoo: Our own facts, under config.json's key "zoo". `requires` (from `requires(spec)`) lets `load` find the
            plugin that registers the architecture.
        tasks: What images answer; none: each is of one class, as where the only task is plain.

    Raises:
        ValueError: The number of names is not the number of classes.
        DiskError: The folder cannot be written to, or the disk is full.
    """
    if len(class_names) != model.num_classes:
        raise ValueError(f"{len(class_names)} class names for a head of {model.num_classes} classes")
    values = data_config.as_dict()
    with files.friendly_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            staging = Path(name)
            hook = model.register_state_dict_post_hook(_plain_tensors)  # type: ignore[no-untyped-call]
            try:
                timm.models.save_for_hf(
                    model,
                    str(staging),
                    model_config={"label_names": list(class_names), "zoo": zoo},
                    safe_serialization=True,
                    data_config=values,
                )
            except SafetensorError as error:
                raise os_error(error) from error
            finally:
                hook.remove()
            config = json.loads((staging / "config.json").read_text(encoding="utf-8"))
            # transformers passes num_classes itself and fails on a second one; timm reads the top-level key.
            config.get("model_args", {}).pop("num_classes", None)
            if not is_plain(tasks):
                config["zoo"] |= task_records(tasks)
                config["problem_type"] = pipeline(tasks)
            (folder / "config.json").unlink(missing_ok=True)
            with files.replacing(folder / "model.safetensors") as temporary:
                (staging / "model.safetensors").replace(temporary)
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            files.write_atomic(folder / "config.json", text.encode("utf-8", "backslashreplace"))


def tasks(folder: Path, classes: Sequence[str]) -> tuple[Task, ...]:
    """What the model in a folder answers, after `load` has found it in order.

    Args:
        folder: The folder.
        classes: Of which one an image is, where nothing is said of tasks.
    """
    return read_tasks(read_config(folder / "config.json")) or one_class(classes)


def load(folder: Path, name: str = "") -> nn.Module:
    """Load a saved model as timm does, in eval mode.

    Args:
        folder: A run folder, or any folder with a timm config.json and model.safetensors.
        name: What messages call it, where the folder's path says little.

    Raises:
        RunError: The folder has no model, or a damaged one.
        PluginError: The plugin that registers its architecture is not installed; the message names the distribution.
    """
    folder = Path(folder)
    what = f"the model {name}" if name else f"the model in {folder}"
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise RunError(f"{folder} holds no finished model", why=f"it has no {file}", fix="see `zoo runs`")
    try:
        config = read_config(folder / "config.json")
        architecture = config["architecture"]
        needed = config.get("zoo", {}).get("requires")
    except (OSError, ValueError) as error:
        raise RunError(f"{name or folder}/config.json is damaged", why=str(error)) from error
    spec = lookup.required(needed, what) if needed else None
    if spec is not None:
        lookup.register_architectures(spec)
    if not timm.is_model(architecture):
        raise PluginError(
            f"{name or folder} holds a {architecture}, which this timm does not know",
            fix="install the plugin that registers it, or upgrade timm",
        )
    try:
        check_safetensors(folder / "model.safetensors")
        with BuildBudget((folder / "model.safetensors").stat().st_size):
            model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, SafetensorError, OSError, TypeError, ValueError) as error:
        raise RunError(f"{what} is damaged", why=strictness(str(error)) or type(error).__name__) from error
    except Exception as error:  # a stranger's settings make timm raise nearly anything, and so may a plugin
        if spec is not None:
            raise lookup.at_fault(spec, error) from error
        raise RunError(f"{what} is damaged", why=strictness(str(error)) or type(error).__name__) from error
    return model.eval()


def _plain_tensors(_module: nn.Module, tensors: dict[str, torch.Tensor], *_rest: Any) -> None:
    """A state-dict hook: safetensors takes neither channels_last memory nor two names for one memory."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in seen or plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        tensors[name] = plain
