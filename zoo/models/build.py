"""Build a backbone: its weights strictly, its head as asked, and a configuration that tells the truth about it."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, cast

import timm
from torch import nn

from zoo.errors import PluginError, RecipeError, WeightsError, ZooError
from zoo.models import lookup
from zoo.models.config_checks import BuildBudget
from zoo.models.spec import BackboneSpec, Weights
from zoo.models.tensor_files import Tensors
from zoo.models.weights import fetch_tensors, reaching, timm_config, unknown_tag

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
    """Build a backbone, load its weights strictly, then give it the head it needs.

    The model is first built with the class count of its weights, so that every tensor must fit; only then is the
    classifier replaced. Other channel counts than the weights' are adapted by timm at the first convolution.

    Args:
        spec: The backbone.
        weights: From `resolve_weights`; None draws random ones from torch's generator.
        num_classes: Classes of the head; None keeps the weights' own head (or the architecture's usual class count).
        in_chans: Channels of the input images.
        drop_rate: Dropout before the classifier, where the architecture has it. 0 to 1.
        image_size: Side of the square input, pixels. An architecture with a fixed input size (ViT, Swin) is built for
            it, position embeddings are resampled, and the size is saved with the model; any other merely records it.

    Returns:
        A timm model in training mode, on the CPU (or on torch's default device), float32.

    Raises:
        PluginError: The architecture is not registered, or the plugin's code that builds it fails.
        RecipeError: The architecture does not take the asked image size, channels or dropout.
        WeightsError: The weights cannot be reached or do not belong to the architecture.
    """
    lookup.register_architectures(spec)
    if not timm.is_model(spec.arch):
        raise PluginError(
            f"{spec.full_name} cannot be built: timm has no architecture {spec.arch!r}",
            why=f"the manifest of {spec.distribution} {spec.version} names it, but nothing registers it",
            fix="upgrade timm, or write to the plugin's authors",
        )
    declared = declared_config(spec, weights)
    options: dict[str, Any] = {**weights.model_args} if weights else {}
    options.pop("num_classes", None)
    source_options = dict(options)
    options["in_chans"] = in_chans
    if drop_rate:
        options["drop_rate"] = drop_rate
    sized = image_size is not None and tuple(declared["input_size"][1:]) != (image_size, image_size)
    if sized and declared.get("fixed_input_size"):
        options["img_size"] = image_size
    try:
        if weights is None:
            model: Any = _create(spec, options, pretrained_cfg=declared, num_classes=num_classes)
        else:
            model = _create_pretrained(spec, weights, declared, options, source_options, num_classes)
            if num_classes is not None and num_classes != model.num_classes:
                model.reset_classifier(num_classes)
        _describe(model, declared, weights, in_chans=in_chans, image_size=image_size)
    except (ZooError, MemoryError):
        raise
    except Exception as error:
        if spec.module is None:
            raise
        raise lookup.at_fault(spec, error) from error
    return cast(nn.Module, model)


def declared_config(spec: BackboneSpec, weights: Weights | None) -> dict[str, Any]:
    """The pretrained configuration that timm declares for these weights, with what their own record says on top."""
    # Random weights see the images that the default weights would see: a comparison of the two then is one.
    facts = weights or next(iter(spec.weights), None)
    by_tag = facts is not None and facts.source == "timm"
    found = timm_config(spec.arch, facts.name) if facts is not None and by_tag else timm_config(spec.arch)
    if found is None and weights is not None and by_tag:
        raise unknown_tag(spec, weights.name)
    found = found or timm.models.PretrainedCfg()
    declared: dict[str, Any] = {key: value for key, value in asdict(found).items() if value is not None}
    if weights is None or not by_tag:
        for key in (*_SOURCE_KEYS, *_TAG_KEYS):
            declared.pop(key, None)
    declared["architecture"] = spec.arch
    size = facts.input if facts is not None else spec.input
    arguments = weights.model_args if weights else {}
    channels = arguments.get("in_chans", declared["input_size"][0])
    if size or channels != declared["input_size"][0]:
        side = size or declared["input_size"][-1]
        if (side, side) != tuple(declared["input_size"][1:]):
            declared["pool_size"] = None
            # The architecture's crop was chosen for its own size; at another one nobody has said to cut anything off.
            declared["crop_pct"] = 1.0
        declared["input_size"] = (channels, side, side)
        for key in _TEST_KEYS:
            declared.pop(key, None)
    for key in ("mean", "std", "interpolation", "crop_pct"):
        if facts is not None and getattr(facts, key) is not None:
            declared[key] = getattr(facts, key)
    if facts is not None and facts.num_classes is not None:
        declared["num_classes"] = facts.num_classes
    if weights is not None:
        declared["tag"] = weights.name
        if weights.license is not None:
            declared["license"] = weights.license
    return declared


def _create_pretrained(
    spec: BackboneSpec,
    weights: Weights,
    declared: dict[str, Any],
    options: dict[str, Any],
    source_options: dict[str, Any],
    num_classes: int | None,
) -> nn.Module:
    """A model with its weights and their own head."""
    if source_options:
        options = {**options, "pretrained_model_args": source_options}
    config = dict(declared)
    if config.get("custom_load"):  # a foreign format (.npz) that only the architecture itself can read
        with reaching(spec, weights, repo=config.get("hf_hub_id"), url=config.get("url")):
            return _create(spec, options, pretrained=True, pretrained_cfg=config, num_classes=config["num_classes"])
    tensors = fetch_tensors(spec, weights, declared)
    for key in _SOURCE_KEYS:
        if key != "label_offset":
            config.pop(key, None)
    try:
        with BuildBudget(sum(tensor.nbytes for tensor in tensors.values())):
            _settle_head(spec, weights, config, options, tensors, num_classes)
            config["state_dict"] = tensors
            return _create(spec, options, pretrained=True, pretrained_cfg=config, num_classes=config["num_classes"])
    except ZooError:
        raise
    except Exception as error:
        if not weights.model_args and not isinstance(error, RuntimeError | KeyError | AssertionError):
            raise  # without a stranger's arguments, timm does not fail in any other way
        size = options.get("img_size")
        raise WeightsError(
            f"the weights {weights.name!r} do not fit the architecture {spec.arch}"
            + (f" at {size} pixels" if size else ""),
            why=strictness(str(error)),
            fix="leave --image-size out" if size else "check that the file is for this architecture, and its metadata",
        ) from error


def _settle_head(
    spec: BackboneSpec,
    weights: Weights,
    config: dict[str, Any],
    options: dict[str, Any],
    tensors: Tensors,
    num_classes: int | None,
) -> None:
    """Find the class count of the tensors' own head, and lend a file that has none the new head it is to get.

    Changes `config["num_classes"]` and `tensors`.
    """
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
        return  # names of another style, which the architecture's filter may know; if they are wrong, timm says so
    if num_classes is None:
        raise WeightsError(
            f"the weights {weights.name!r} have no classifier",
            why=f"{names[0]}.weight is not in the file",
            fix="adapt the backbone to your images first; as it is, it predicts nothing",
        )
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
    arguments = {**options, "num_classes": num_classes}
    try:
        model: nn.Module = timm.create_model(
            spec.arch, pretrained=pretrained, pretrained_cfg=pretrained_cfg, **arguments
        )
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        option = refused.group(1) if refused else ""
        if option not in options:
            raise
        names = {"img_size": "another image size", "in_chans": "other channel counts", "drop_rate": "dropout"}
        raise RecipeError(
            f"{spec.full_name} does not take {names.get(option, option)}",
            why=f"the architecture {spec.arch} has no argument {option!r}",
            fix="leave it out, or choose another backbone",
        ) from error
    return model


def _describe(
    model: Any, declared: dict[str, Any], weights: Weights | None, *, in_chans: int, image_size: int | None
) -> None:
    """Make `model.pretrained_cfg` say what is true of this model: everything downstream reads it."""
    config = {key: value for key, value in model.pretrained_cfg.items() if key not in ("state_dict", "file", "source")}
    current = timm.models.get_model_input_config(model)
    size = tuple(current["input_size"][1:])
    if image_size is not None and not current["fixed_input_size"]:
        size = (image_size, image_size)
    if size != tuple(declared["input_size"][1:]):
        config["pool_size"] = None
        for key in _TEST_KEYS:
            config.pop(key, None)
    config["input_size"] = (in_chans, *size)
    for key in ("mean", "std"):
        config[key] = _per_channel(tuple(config[key]), in_chans)
    if weights is not None and weights.labels and len(weights.labels) == model.num_classes:
        config["label_names"] = weights.labels
    elif model.num_classes != declared["num_classes"]:
        for key in ("label_names", "label_descriptions", "label_offset"):
            config.pop(key, None)
    config["num_classes"] = model.num_classes
    model.pretrained_cfg = model.default_cfg = config


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Normalisation for another channel count; timm sums a first convolution to one channel, or repeats it in turn."""
    if len(values) == channels:
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(channels))


def strictness(message: str) -> str:
    """What torch says about a state dict that does not fit, on one line with the first few names of each kind."""
    parts = []
    for kind, label in (("Missing", "missing"), ("Unexpected", "unexpected")):
        found = re.search(rf"{kind} key\(s\) in state_dict: (.*?)\. ?$", message, re.MULTILINE)
        if found:
            names = re.findall(r'"([^"]+)"', found.group(1))
            parts.append(f"{label}: {_listing(names)}")
    wrong = re.findall(
        r"size mismatch for ([^:]+): .*?shape torch\.Size\((\[.*?\])\).*?shape.*?torch\.Size\((\[.*?\])\)", message
    )
    if wrong:
        parts.append(f"other shape: {_listing([f'{name} {there} instead of {here}' for name, there, here in wrong])}")
    return "; ".join(parts) or " ".join(message.split())[:300]


def _listing(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
