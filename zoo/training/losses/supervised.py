"""Cross-entropy on labelled images, with label smoothing, class weights, mixup and CutMix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.data import Mixup
from torch import nn
from torch.nn import functional

from zoo.data import Batch
from zoo.recipes.plan import PhasePlan
from zoo.tasks.single_label import LOSSES, class_losses
from zoo.training.losses.objective import Loss, Objective


class Supervised(Objective):
    """The loss of one batch of labelled images.

    Args:
        num_classes: Classes of the head.
        name: A loss of `zoo.tasks.single_label.LOSSES`; any other name means cross-entropy.
        label_smoothing: Share of each target spread over all classes (Szegedy et al. 2016).
        class_weights: A weight per class against imbalance, mean 1 over the training images, or None.
        mixup: Alpha of mixup (Zhang et al. 2018); 0 turns it off.
        cutmix: Alpha of CutMix (Yun et al. 2019); 0 turns it off. With both on, each batch takes one of them.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        name: str = "",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes, self._name = num_classes, name
        self._smoothing, self._cutmix = label_smoothing, cutmix
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self._mix = (
            Mixup(mixup, cutmix, label_smoothing=label_smoothing, num_classes=num_classes) if mixup or cutmix else None
        )

    def needs_images(self, phase: PhasePlan) -> str:
        """CutMix pastes pieces of one image into another."""
        return "CutMix needs pixels" if self._cutmix else ""

    def forward(self, network: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of one batch."""
        return Loss(self.loss(network, batch.images, batch.labels))

    def loss(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss, a scalar in nats, of (B, C, H, W) normalised images and (B,) class indices."""
        images, targets = self.mixed(images, labels)
        return self.compare(model(images).float(), targets)

    def mixed(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images as the network gets them, and targets: (B,) class indices, or (B, classes) shares."""
        if self._mix is None or len(images) < 2:
            return images, labels
        pairs = len(images) // 2 * 2  # timm mixes a batch with itself reversed, which wants an even count
        mixed, shares = self._mix(images[:pairs].clone(), labels[:pairs])
        return mixed, shares

    def compare(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of (B, classes) logits in float32 against the targets of `mixed`; a scalar, nats."""
        if self._weights is not None:
            self._weights = self._weights.to(logits.device)  # once: a copy in every step would hold a GPU up
        if self._name in LOSSES:
            losses = class_losses(self._name, logits, targets, self._smoothing)
            return (losses if self._weights is None or targets.ndim > 1 else losses * self._weights[targets]).mean()
        if targets.ndim > 1:  # shares, smoothed already
            return functional.cross_entropy(logits, targets)
        if self._weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=self._smoothing)
        # Torch's own mean divides by the weights that happen to be in the batch: an image's pull would then depend on
        # its neighbours, and on how many processes or accumulated parts a batch is cut into.
        losses = functional.cross_entropy(
            logits, targets, weight=self._weights, label_smoothing=self._smoothing, reduction="none"
        )
        return losses.mean()
