"""Model building: a backbone with strictly loaded weights, a new head and a correct configuration."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, cast

import timm
from torch import nn

from zoo.errors import PluginError, RecipeError, WeightsError, ZooError
from zoo.models import lookup
from zoo.models.config_checks import BuildBudget
from zoo.models.layer_groups import listing
from zoo.models.spec import BackboneSpec, Weights
from zoo.models.tensor_files import Tensors
from zoo.models.weights import fetch_tensors, network_errors, timm_config, unknown_tag

_SOURCE_KEYS = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load", "label_offset")
_TAG_KEYS = ("tag", "label_names", "label_descriptions", "license", "description", "origin_url", "notes")
_TEST_KEYS = ("test_input_size", "test_crop_pct", "test_pool_size")
_SHOWN = 4  # tensor names that an error message lists


def build(
    spec: BackboneSpec,
    *,
    weights: Weights | None,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    image_size: int | None = None,
) -> nn.Module:
    """Build a backbone, load its weights strictly, then give it its head.

    The model is first built with the class count of its weights, so that every tensor must fit; only then is the
    classifier replaced. timm adapts the first convolution if the channel count is not the weights'.

    Args:
        spec: The backbone.
        weights: From `resolve_weights`; None draws random ones from torch's generator.
        num_classes: Classes of the head; None keeps the weights' own head (or the architecture's usual class count).
        in_chans: Channels of the input images.
        drop_rate: Dropout before the classifier, if the architecture has it. 0 to 1.
        image_size: Side of the square input, pixels. An architecture with a fixed input size (ViT, Swin) is built for
            it, position embeddings are resampled, and the size is saved with the model; any other merely records it.

    Returns:
        A timm model in training mode, on the CPU (or on torch's default device), float32.

    Raises:
        PluginError: The architecture is not registered, or the plugin's code that builds it fails.
        RecipeError: The architecture does not take this image size, channel count or dropout.
        WeightsError: The weights cannot be reached or do not belong to the architecture.
    """
    lookup.register_architectures(spec)
    if not timm.is_model(spec.arch):
        what = f"{spec.full_name} cannot be built: timm has no architecture {spec.arch!r}"
        why = f"the manifest of {spec.distribution} {spec.version} names it, but nothing registers it"
        raise PluginError(what, why=why, fix="upgrade timm, or write to the plugin's authors")
    declared = declared_config(spec, weights)
    options: dict[str, Any] = {**_own_options(weights), "in_chans": in_chans}
    if drop_rate:
        options["drop_rate"] = drop_rate
    sized = image_size is not None and tuple(declared["input_size"][1:]) != (image_size, image_size)
    if sized and declared.get("fixed_input_size"):
        options["img_size"] = image_size
    try:
        if weights is None:
            model: Any = _create(spec, options, pretrained_cfg=declared, num_classes=num_classes)
        else:
            model = _create_pretrained(spec, weights, declared, options, num_classes)
            if num_classes is not None and num_classes != model.num_classes:
                model.reset_classifier(num_classes)
        _update_config(model, declared, weights, in_chans=in_chans, image_size=image_size)
    except (ZooError, MemoryError):
        raise
    except Exception as error:
        if spec.module is None:
            raise
        raise lookup.at_fault(spec, error) from error
    return cast(nn.Module, model)


def declared_config(spec: BackboneSpec, weights: Weights | None) -> dict[str, Any]:
    """The pretrained configuration that timm declares for these weights, updated with their own record."""
    # Random weights get the default weights' preprocessing, so that the two can be compared.
    facts = weights or next(iter(spec.weights), None)
    by_tag = facts is not None and facts.source == "timm"
    config = timm_config(spec.arch, facts.name) if facts is not None and by_tag else timm_config(spec.arch)
    if config is None and weights is not None and by_tag:
        raise unknown_tag(spec, weights.name)
    config = config or timm.models.PretrainedCfg()
    declared: dict[str, Any] = {key: value for key, value in asdict(config).items() if value is not None}
    if weights is None or not by_tag:
        _drop(declared, *_SOURCE_KEYS, *_TAG_KEYS)
    declared["architecture"] = spec.arch
    size = facts.input if facts is not None else spec.input
    arguments = weights.model_args if weights else {}
    channels = arguments.get("in_chans", declared["input_size"][0])
    if size or channels != declared["input_size"][0]:
        side = size or declared["input_size"][-1]
        if (side, side) != tuple(declared["input_size"][1:]):
            declared["pool_size"] = None
            # The architecture's crop was chosen for its own size; at another one nothing is cut off.
            declared["crop_pct"] = 1.0
        declared["input_size"] = (channels, side, side)
        _drop(declared, *_TEST_KEYS)
    for key in ("mean", "std", "interpolation", "crop_pct", "num_classes"):
        if facts is not None and getattr(facts, key) is not None:
            declared[key] = getattr(facts, key)
    if weights is not None:
        declared["tag"] = weights.name
        if weights.license is not None:
            declared["license"] = weights.license
    return declared


def _drop(config: dict[str, Any], *keys: str) -> None:
    for key in keys:
        config.pop(key, None)


def _own_options(weights: Weights | None) -> dict[str, Any]:
    """The arguments of the architecture that the weights were trained with."""
    return {key: value for key, value in weights.model_args.items() if key != "num_classes"} if weights else {}


def _create_pretrained(
    spec: BackboneSpec, weights: Weights, declared: dict[str, Any], options: dict[str, Any], num_classes: int | None
) -> nn.Module:
    """A model with its weights and their own head."""
    if own := _own_options(weights):
        options = {**options, "pretrained_model_args": own}
    config = dict(declared)
    if config.get("custom_load"):  # another format (.npz) that only the architecture itself can read
        with network_errors(spec, weights, repo=config.get("hf_hub_id"), url=config.get("url")):
            return _create(spec, options, pretrained=True, pretrained_cfg=config, num_classes=config["num_classes"])
    tensors = fetch_tensors(spec, weights, declared)
    _drop(config, *(key for key in _SOURCE_KEYS if key != "label_offset"))
    try:
        with BuildBudget(sum(tensor.nbytes for tensor in tensors.values())):
            _settle_head(spec, weights, config, options, tensors, num_classes)
            config["state_dict"] = tensors
            return _create(spec, options, pretrained=True, pretrained_cfg=config, num_classes=config["num_classes"])
    except ZooError:
        raise
    except Exception as error:
        if not weights.model_args and not isinstance(error, RuntimeError | KeyError | AssertionError):
            raise  # without arguments from the weights' metadata, timm does not fail in any other way
        what = f"the weights {weights.name!r} do not fit the architecture {spec.arch}"
        fix = "check that the file is for this architecture, and its metadata"
        if size := options.get("img_size"):
            what, fix = f"{what} at {size} pixels", "leave --image-size out"
        raise WeightsError(what, why=strictness(str(error)), fix=fix) from error


def _settle_head(
    spec: BackboneSpec,
    weights: Weights,
    config: dict[str, Any],
    options: dict[str, Any],
    tensors: Tensors,
    num_classes: int | None,
) -> None:
    """Set `config["num_classes"]` to that of the tensors' head; add a new head to `tensors` if they have none."""
    classifier = config.get("classifier")
    if weights.source == "timm" or not classifier:
        return
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    if f"{names[0]}.weight" in tensors:
        if weights.num_classes is None:
            config["num_classes"] = int(tensors[f"{names[0]}.weight"].shape[0])
        return
    fresh = _create(spec, options, pretrained_cfg=config, num_classes=num_classes or config["num_classes"]).state_dict()
    prefixes = tuple(f"{name}." for name in names)
    if {name for name in fresh if not name.startswith(prefixes)} != set(tensors):
        return  # other names, which the architecture's filter may know; if not, timm raises
    if num_classes is None:
        what, why = f"the weights {weights.name!r} have no classifier", f"{names[0]}.weight is not in the file"
        raise WeightsError(what, why=why, fix="adapt the backbone to your images first; as it is, it predicts nothing")
    config["num_classes"] = num_classes
    tensors.update({name: value for name, value in fresh.items() if name.startswith(prefixes)})


def _create(
    spec: BackboneSpec,
    options: dict[str, Any],
    *,
    pretrained_cfg: dict[str, Any],
    num_classes: int | None,
    pretrained: bool = False,
) -> nn.Module:
    config = {"pretrained": pretrained, "pretrained_cfg": pretrained_cfg}
    try:
        model: nn.Module = timm.create_model(spec.arch, num_classes=num_classes, **config, **options)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        option = refused.group(1) if refused else ""
        if option not in options:
            raise
        names = {"img_size": "another image size", "in_chans": "other channel counts", "drop_rate": "dropout"}
        what = f"{spec.full_name} does not take {names.get(option, option)}"
        why = f"the architecture {spec.arch} has no argument {option!r}"
        raise RecipeError(what, why=why, fix="leave it out, or choose another backbone") from error
    return model


def _update_config(
    model: Any, declared: dict[str, Any], weights: Weights | None, *, in_chans: int, image_size: int | None
) -> None:
    """Correct `model.pretrained_cfg`, which everything downstream reads, for this model."""
    config = dict(model.pretrained_cfg)
    _drop(config, "state_dict", "file", "source")
    current = timm.models.get_model_input_config(model)
    size = tuple(current["input_size"][1:])
    if image_size is not None and not current["fixed_input_size"]:
        size = (image_size, image_size)
    if size != tuple(declared["input_size"][1:]):
        config["pool_size"] = None
        _drop(config, *_TEST_KEYS)
    config["input_size"] = (in_chans, *size)
    for key in ("mean", "std"):
        config[key] = _per_channel(tuple(config[key]), in_chans)
    if weights is not None and weights.labels and len(weights.labels) == model.num_classes:
        config["label_names"] = weights.labels
    elif model.num_classes != declared["num_classes"]:
        _drop(config, "label_names", "label_descriptions", "label_offset")
    config["num_classes"] = model.num_classes
    model.pretrained_cfg = model.default_cfg = config


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Mean or std for another channel count: timm sums the first convolution to one channel, or repeats it in turn."""
    if len(values) == channels:
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(channels))


def strictness(message: str) -> str:
    """The error of torch about a state dict that does not fit, on one line with the first names of each kind."""
    parts = []
    for kind in ("Missing", "Unexpected"):
        keys = re.search(rf"{kind} key\(s\) in state_dict: (.*?)\. ?$", message, re.MULTILINE)
        if keys:
            names = re.findall(r'"([^"]+)"', keys.group(1))
            parts.append(f"{kind.lower()}: {listing(names, _SHOWN)}")
    mismatch = r"size mismatch for ([^:]+): .*?shape torch\.Size\((\[.*?\])\).*?shape.*?torch\.Size\((\[.*?\])\)"
    wrong = [f"{name} {found} instead of {expected}" for name, found, expected in re.findall(mismatch, message)]
    if wrong:
        parts.append(f"other shape: {listing(wrong, _SHOWN)}")
    return "; ".join(parts) or " ".join(message.split())[:300]
