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

timm_data: Any = timm.data  # has hardly any type information


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The preprocessing of images in evaluation."""

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
    """A built or loaded model's preprocessing; `image_size` is another side of the square input, pixels.

    Raises RecipeError if the model was built for a fixed input size and `image_size` is another.
    """
    config = timm_data.resolve_model_data_config(model)
    height, width = config["input_size"][1:]
    fixed = timm.models.get_model_input_config(model)["fixed_input_size"]
    if fixed and image_size is not None and (height, width) != (image_size, image_size):
        what = f"this model takes {height} x {width} images only, not {image_size} x {image_size}"
        why = "its position embeddings fix the size when it is built"
        raise RecipeError(what, why=why, fix=f"leave --image-size out, or build it for {image_size}")
    return _data_config(config, image_size)


def expected_data_config(spec: BackboneSpec, weights: Weights | None, image_size: int | None = None) -> DataConfig:
    """The preprocessing of a model before it is built, so that data can get ready; arguments as for `build`.

    Raises PluginError if the plugin's module cannot be imported, WeightsError if the weights' tag does not exist.
    """
    lookup.register_architectures(spec)
    return _data_config(timm_data.resolve_data_config(pretrained_cfg=declared_config(spec, weights)), image_size)


def _data_config(config: dict[str, Any], image_size: int | None) -> DataConfig:
    channels, height, width = config["input_size"]
    size = (channels, image_size or height, image_size or width)
    return DataConfig(size, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["crop_pct"],
                      config["crop_mode"])  # fmt: skip
