"""PyTorch's transfer learning tutorial: SGD, a step schedule, random crops, batches of 4, on the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.sides.shared import facts, pretrained, right
from benchmarks.stopwatch import Stopwatch

BATCH = 4
WORKERS = 4


def run(job: Mapping[str, Any], watch: Stopwatch) -> dict[str, Any]:
    torch.manual_seed(job["seed"])
    said, side = facts(job["weights"]), job["image_size"]
    end = [transforms.ToTensor(), transforms.Normalize(said["mean"], said["std"])]
    augmented = transforms.Compose([transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), *end])
    plain = transforms.Compose([transforms.Resize(side * 256 // 224), transforms.CenterCrop(side), *end])
    training = ImageFolder(str(Path(job["data"]) / "train"), augmented)
    reported = ImageFolder(str(Path(job["data"]) / "test"), plain)
    batches = DataLoader(training, batch_size=BATCH, shuffle=True, num_workers=WORKERS)
    scored = DataLoader(reported, batch_size=BATCH, num_workers=WORKERS)
    model = pretrained(job, len(training.classes))
    trained = model.parameters()
    if job["kind"] == "probe":
        model.requires_grad_(False)
        trained = model.get_classifier().requires_grad_(True).parameters()
    optimizer = SGD(trained, lr=0.001, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=7, gamma=0.1)
    loss_of = nn.CrossEntropyLoss()
    watch.mark("training")
    for _ in range(job["epochs"]):
        model.train()
        for images, labels in batches:
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
        scheduler.step()
        with watch.paused():
            hits, count = right(model, scored)
        watch.point(hits / count)
    watch.mark("trained")
    hits, count = right(model, scored)
    torch.save(model.state_dict(), job["out"])
    return {"accuracy": hits / count, "n": count, "trained_on": len(training)}
