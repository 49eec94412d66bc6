"""timm as its train.py puts its public functions together, with that script's defaults for what it was not told.

SGD with momentum 0.9, weight decay 2e-5 (not on biases and norms), a rate of 0.1 per 256 images, cosine decay to 0, its
training augmentation. The script's five epochs of warm-up would be the whole of a short training: there is none, as the
scheduler's own default has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch import nn

from benchmarks.sides.shared import facts, pretrained, right
from benchmarks.stopwatch import Stopwatch

BATCH = 64
WORKERS = 4


def run(job: Mapping[str, Any], watch: Stopwatch) -> dict[str, Any]:
    random_seed(job["seed"])
    said = facts(job["weights"])

    def loader(part: str, is_training: bool) -> Any:
        return create_loader(
            create_dataset("", str(Path(job["data"]) / part), split=part, is_training=is_training),
            input_size=job["image_size"],
            batch_size=BATCH,
            is_training=is_training,
            mean=said["mean"],
            std=said["std"],
            num_workers=WORKERS,
            device=torch.device("cpu"),
        )

    training, reported = loader("train", True), loader("test", False)
    model = pretrained(job, len(training.dataset.reader.class_to_idx))
    if job["kind"] == "probe":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1 * BATCH / 256, weight_decay=2e-5, momentum=0.9)
    scheduler, epochs = create_scheduler_v2(optimizer, num_epochs=job["epochs"])
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    watch.mark("training")
    for epoch in range(epochs):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
        scheduler.step(epoch + 1)
        with watch.paused():
            hits, count = right(model, reported)
        watch.point(hits / count)
    watch.mark("trained")
    hits, count = right(model, reported)
    torch.save(model.state_dict(), job["out"])
    return {"accuracy": hits / count, "n": count, "trained_on": len(training.dataset)}
