"""Saved models: save and load timm models, with their class names, tasks and preprocessing."""

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
from zoo.models.build import build as build  # part of this module's interface, as is resolve_weights
from zoo.models.build import strictness
from zoo.models.config_checks import BuildBudget, read_config, read_tasks
from zoo.models.preprocessing import DataConfig, timm_data
from zoo.models.spec import BackboneSpec, Weights
from zoo.models.tensor_files import check_safetensors, os_error
from zoo.models.weights import resolve_weights as resolve_weights
from zoo.tasks.schema import Task, is_plain, one_class, pipeline, task_records


def labels(model: nn.Module, weights: Weights | None) -> tuple[str, ...]:
    """Class names of a model's pretrained head, in order.

    From the weights' record, else the model's configuration, else ImageNet's if the head is one of ImageNet's; else
    "class 0", "class 1", ….
    """
    network: Any = model
    count, config = int(network.num_classes), network.pretrained_cfg
    declared = (weights.labels if weights else None) or config.get("label_names")
    if declared and len(declared) == count:
        return tuple(declared.values()) if isinstance(declared, dict) else tuple(declared)
    subset = timm_data.infer_imagenet_subset(model)
    if weights is not None and subset is not None and re.search(r"in(?:1k|12k|2[12]k)", weights.name):
        info = timm_data.ImageNetInfo(subset)
        synsets, names = info.label_names(), info.label_descriptions()
        # Two ImageNet classes may share a description ("crane"): the synset tells them apart.
        shared = {name for name in names if names.count(name) > 1} if count <= 1000 else set()
        pairs = zip(names, synsets, strict=True)
        return tuple(f"{name} ({synset})" if name in shared else name for name, synset in pairs)
    return tuple(f"class {index}" for index in range(count))


def has_folded_norms(model: nn.Module) -> bool:
    """Whether all batch norms have running mean 0 and variance 1: their statistics were folded into convolutions.

    Such a checkpoint predicts well, but breaks as soon as its norms train. Only for pretrained weights: a freshly
    initialised model looks the same.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    statistics = [(norm.running_mean, norm.running_var) for norm in norms]
    return bool(statistics) and all(
        mean is not None and variance is not None and not mean.any() and bool((variance == 1).all())
        for mean, variance in statistics
    )


def requires(spec: BackboneSpec) -> dict[str, str] | None:
    """The plugin that a saved model needs, for `save(…, zoo={"requires": …})`; None if timm is enough."""
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

    The model, in any memory format and on any device, is not changed. An old config.json is removed first, so that a
    half-written folder never looks whole. Raises DiskError if the folder cannot be written to or the disk is full.

    Args:
        model: A timm model.
        folder: Where to; made if missing.
        class_names: Names of the head's classes, in order; their number must be `num_classes`.
        data_config: The preprocessing that the weights were trained for.
        zoo: Facts under config.json's key "zoo"; `requires` tells `load` which plugin registers the architecture.
        tasks: The model's tasks; none if each image is of one class.
    """
    if len(class_names) != model.num_classes:
        raise ValueError(f"{len(class_names)} class names for a head of {model.num_classes} classes")
    with files.friendly_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            staging = Path(name)
            facts = {"label_names": list(class_names), "zoo": zoo}
            hook = model.register_state_dict_post_hook(_plain_tensors)  # type: ignore[no-untyped-call]
            try:
                timm.models.save_for_hf(model, name, facts, safe_serialization=True, data_config=data_config.as_dict())
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
    """The tasks of a loaded folder's model; one task of these classes if its config.json names none."""
    return read_tasks(read_config(folder / "config.json")) or one_class(classes)


def load(folder: Path, name: str = "") -> nn.Module:
    """Load the model in a run folder, or any folder with a timm config.json and model.safetensors, in eval mode.

    Messages call it `name`, if given. Raises RunError if the folder has no model or a damaged one, PluginError if the
    plugin that registers its architecture is not installed.
    """
    what = f"the model {name}" if name else f"the model in {folder}"
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise RunError(f"{folder} holds no finished model", why=f"it has no {file}", fix="see `zoo runs`")
    try:
        config = read_config(folder / "config.json")
    except (OSError, ValueError) as error:
        raise RunError(f"{name or folder}/config.json is damaged", why=str(error)) from error
    requirement = config.get("zoo", {}).get("requires")
    spec = lookup.required(requirement, what) if requirement else None
    if spec is not None:
        lookup.register_architectures(spec)
    if not timm.is_model(config["architecture"]):
        unknown = f"{name or folder} holds a {config['architecture']}, which this timm does not know"
        raise PluginError(unknown, fix="install the plugin that registers it, or upgrade timm")
    try:
        check_safetensors(folder / "model.safetensors")
        with BuildBudget((folder / "model.safetensors").stat().st_size):
            model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:  # damaged settings make timm raise nearly anything, and so may a plugin
        damage = RuntimeError | SafetensorError | OSError | TypeError | ValueError
        if spec is not None and not isinstance(error, damage):
            raise lookup.at_fault(spec, error) from error
        raise RunError(f"{what} is damaged", why=strictness(str(error)) or type(error).__name__) from error
    return model.eval()


def _plain_tensors(_module: nn.Module, tensors: dict[str, torch.Tensor], *_rest: Any) -> None:
    """A state-dict hook: safetensors takes neither channels_last tensors nor two names for one memory."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        # A tensor that shares memory with another, or is a part of a larger one, gets memory of its own.
        if plain.untyped_storage().data_ptr() in seen or plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        tensors[name] = plain
