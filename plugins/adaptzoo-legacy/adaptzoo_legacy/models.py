"""AlexNet and GoogLeNet as timm architectures, on torchvision's modules and weights.

Both follow timm's model interface, so that heads, input channels, saving and the Hub behave as for any timm model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, checkpoint, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import alexnet as torchvision_alexnet
from torchvision.models import googlenet as torchvision_googlenet

__all__ = ["AlexNet", "GoogLeNet"]


class AlexNet(nn.Module):
    """AlexNet in its one-tower form (Krizhevsky 2014, "One weird trick", arXiv:1404.5997), as torchvision has it.

    Tensor names and values are torchvision's. Images smaller than 63 px, where nothing would be left to pool, raise.

    Args:
        num_classes: Classes of the head; 0 for none.
        in_chans: Channels of the input.
        global_pool: Only "avg": pooling to 6 x 6 is part of the architecture.
        drop_rate: Dropout before the two hidden layers of the classifier (the paper used 0.5). 0 to 1.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        _only_average(global_pool)
        source = torchvision_alexnet(weights=None, dropout=drop_rate)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = 256
        self.head_hidden_size = 4096
        self.grad_checkpointing = False
        self.features = source.features
        if in_chans != 3:
            self.features[0] = nn.Conv2d(in_chans, 64, kernel_size=11, stride=4, padding=2)
        self.avgpool = source.avgpool
        self.classifier = source.classifier
        self.reset_classifier(num_classes)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups, input to head."""
        return {"stem": r"^features\.0\.", "blocks": r"^features\.(\d+)\."}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in the convolutions."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier[6]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes, 0 for none."""
        if global_pool is not None:
            _only_average(global_pool)
        self.num_classes = num_classes
        reference = self.classifier[4].weight
        self.classifier[6] = _linear(self.head_hidden_size, num_classes, reference)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images to (B, 256, h, w) features."""
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint(self.features, x)
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 256, h, w) features to (B, num_classes) logits, or to the (B, 4096) input of the last layer."""
        x = torch.flatten(self.avgpool(x), 1)
        x = self.classifier[:6](x)
        return x if pre_logits else self.classifier[6](x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images to (B, num_classes) logits."""
        return self.forward_head(self.forward_features(x))


class GoogLeNet(nn.Module):
    """GoogLeNet with batch norm (Szegedy et al. 2015, arXiv:1409.4842), as torchvision has it, without auxiliary heads.

    Tensor names and values are torchvision's. `transform_input` is not part of it: its arithmetic is in the
    normalisation that `pretrained_cfg` declares (mean and standard deviation 0.5), so any channel count works.

    Args:
        num_classes: Classes of the head; 0 for none.
        in_chans: Channels of the input.
        global_pool: "avg", or "" for none.
        drop_rate: Dropout before the classifier (torchvision trains with 0.2). 0 to 1.
    """

    _stages = (
        ("conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
        ("inception3a", "inception3b", "maxpool3"),
        ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),
        ("inception5a", "inception5b"),
    )

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        # torchvision's own initialisation draws from scipy-like truncated normals for seconds; ours is below.
        source = torchvision_googlenet(weights=None, aux_logits=False, init_weights=False)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = 1024
        self.grad_checkpointing = False
        for name in (name for stage in self._stages for name in stage):
            setattr(self, name, getattr(source, name))
        if in_chans != 3:
            self.conv1.conv = nn.Conv2d(in_chans, 64, kernel_size=7, stride=2, padding=3, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.fc = source.fc
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups, input to head."""
        names = [name for stage in self._stages[1:] for name in stage if name.startswith("inception")]
        blocks = {f"blocks{number}": rf"^{name}\." for number, name in enumerate(names)}
        return {"stem": r"^conv[123]\.", **blocks}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory, stage by stage."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes, 0 for none."""
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ValueError(f"global_pool must be 'avg' or '', not {global_pool!r}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.fc = _linear(self.num_features, num_classes, self.conv1.conv.weight)

    def _stage(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images to (B, 1024, H/32, W/32) features."""
        for names in self._stages:
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(self._stage, names, x)
            else:
                x = self._stage(names, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 1024, h, w) features to (B, num_classes) logits, or to the (B, 1024) input of the last layer."""
        if self.global_pool:
            x = x.mean((2, 3))
        x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images to (B, num_classes) logits; one tensor in training too."""
        return self.forward_head(self.forward_features(x))


def _linear(width: int, num_classes: int, reference: Tensor) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    layer = nn.Linear(width, num_classes, device=reference.device, dtype=reference.dtype)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _only_average(global_pool: str) -> None:
    if global_pool != "avg":
        raise ValueError(f"AlexNet pools to 6 x 6 by averaging; global_pool must be 'avg', not {global_pool!r}")


def _without_auxiliary_heads(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drop the auxiliary heads from torchvision's file: they were never trained."""
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith(("aux1.", "aux2."))}


_SHARED = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,  # 224 out of 256
    "interpolation": "bilinear",
    "license": "bsd-3-clause",
    "origin_url": "https://github.com/pytorch/vision",
}

default_cfgs = generate_default_cfgs(
    {
        "alexnet.tv_in1k": {
            **_SHARED,
            "url": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "features.0",
            "classifier": "classifier.6",
            "pool_size": (6, 6),
            "min_input_size": (3, 63, 63),
        },
        "googlenet.tv_in1k": {
            **_SHARED,
            "url": "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "mean": IMAGENET_INCEPTION_MEAN,  # torchvision's transform_input, as normalisation
            "std": IMAGENET_INCEPTION_STD,
            "first_conv": "conv1.conv",
            "classifier": "fc",
            "pool_size": (7, 7),
            "min_input_size": (3, 15, 15),
        },
    }
)


@register_model
def alexnet(pretrained: bool = False, **kwargs: Any) -> AlexNet:
    """AlexNet, one tower."""
    return build_model_with_cfg(AlexNet, "alexnet", pretrained, **kwargs)


@register_model
def googlenet(pretrained: bool = False, **kwargs: Any) -> GoogLeNet:
    """GoogLeNet with batch norm, without auxiliary heads."""
    return build_model_with_cfg(
        GoogLeNet, "googlenet", pretrained, pretrained_filter_fn=_without_auxiliary_heads, **kwargs
    )
