"""Preprocessing that a network expects: input size, mean, std, interpolation, crop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import timm
from torch import nn

from zoo.errors import RecipeError
from zoo.models import lookup
from zoo.models.build import declared_config
from zoo.models.spec import BackboneSpec, Weights

timm_data: Any = timm.data  # without type information worth the name


@dataclass(frozen=True, slots=True)
class DataConfig:
    """How images become a model's input, in evaluation."""

    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    interpolation: str  # "bicubic" | "bilinear"
    crop_pct: float  # input side / resized short side
    crop_mode: str = "center"  # timm's: "center" | "squash" | "border"

    def as_dict(self) -> dict[str, Any]:
        """The same values under timm's keys, ready for `timm.data.create_transform(**…)`."""
        return asdict(self)


def data_config(model: nn.Module, image_size: int | None = None) -> DataConfig:
    """How images become this model's input.

    Args:
        model: A model from `build` or `load`.
        image_size: Another side of the square input, pixels.

    Raises:
        RecipeError: The model was built for a fixed input size, and `image_size` is another.
    """
    found = timm_data.resolve_model_data_config(model)
    channels, height, width = found["input_size"]
    if image_size is not None and (height, width) != (image_size, image_size):
        if timm.models.get_model_input_config(model)["fixed_input_size"]:
            raise RecipeError(
                f"this model takes {height} x {width} images only, not {image_size} x {image_size}",
                why="its position embeddings fix the size when it is built",
                fix=f"leave --image-size out, or build it for {image_size}",
            )
        height = width = image_size
    return DataConfig(
        input_size=(channels, height, width),
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        interpolation=found["interpolation"],
        crop_pct=found["crop_pct"],
        crop_mode=found["crop_mode"],
    )


def expected_data_config(spec: BackboneSpec, weights: Weights | None, image_size: int | None = None) -> DataConfig:
    """How images will become a model's input, known before the model is built: what data needs to get ready.

    Args:
        spec: The backbone.
        weights: The weights it will get, from `resolve_weights`.
        image_size: Another side of the square input, pixels.

    Raises:
        PluginError: The plugin's module cannot be imported.
        WeightsError: The weights' tag does not exist.
    """
    lookup.register_architectures(spec)
    found = timm_data.resolve_data_config(pretrained_cfg=declared_config(spec, weights))
    size = (found["input_size"][0], image_size, image_size) if image_size else tuple(found["input_size"])
    return DataConfig(size, tuple(found["mean"]), tuple(found["std"]), found["interpolation"], found["crop_pct"],
                      found["crop_mode"])  # fmt: skip
