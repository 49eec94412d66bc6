"""What a plugin offers, as plain records: no tensors and no heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

WeightsSource = Literal["timm", "file", "hf-hub", "url"]


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """One ordered part of a network, from input to head."""

    name: str  # "stem", "layer1", …, "head"
    match: str  # regular expression, matched at the start of a tensor's name


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of pretrained weights and what it takes to use it right.

    Fields left at None take the value that timm declares for the architecture and tag.
    """

    name: str  # "a1_in1k"; for source "timm" it is the pretrained tag
    source: WeightsSource
    path: str | None = None  # source "file": absolute path of a .safetensors or .pth file
    url: str | None = None  # source "url": where the file is
    repo: str | None = None  # source "hf-hub": "ORG/NAME[@revision]"
    sha256: str | None = None  # of the file; checked before the file is read
    num_classes: int | None = None  # classes of the pretrained head
    input: int | None = None  # side of the square input, pixels
    mean: tuple[float, ...] | None = None  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...] | None = None  # per channel, of pixels scaled to 0..1
    interpolation: str | None = None  # "bicubic" | "bilinear"
    crop_pct: float | None = None  # input side / resized short side at evaluation
    model_args: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    license: str | None = None  # SPDX-like, lower case: "apache-2.0", "cc-by-nc-4.0"
    labels: tuple[str, ...] | None = None  # class names of the pretrained head, in order


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """One backbone that a plugin offers: a timm architecture, its weights and its groups."""

    name: str  # short name: "resnet50"
    plugin: str  # "resnet"
    arch: str  # timm architecture: "resnet50"
    params: int | None  # parameter count with the pretrained head; None for dynamic plugins
    input: int | None  # side of the square input, pixels; None: what timm declares
    weights: tuple[Weights, ...]  # the first is the default
    groups: tuple[LayerGroup, ...]  # ordered, input to head; empty: derived from the built model
    module: str | None  # imported only when this backbone is built
    distribution: str  # the distribution that brings the plugin: "adaptzoo-resnet"
    version: str  # and its version

    @property
    def full_name(self) -> str:
        """`plugin/backbone`, unambiguous among installed plugins."""
        return f"{self.plugin}/{self.name}"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One usable plugin, as its manifest declares it."""

    name: str
    summary: str
    api: int  # version of the manifest contract
    backbones: tuple[BackboneSpec, ...]
    dynamic: str | None  # "timm": offers every timm architecture as `timm/<architecture>`
    module: str | None
    distribution: str
    version: str
    root: Path  # folder of the manifest; weights paths are relative to it
