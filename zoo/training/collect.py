"""Evaluation: run a model over batches and collect its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from zoo.data import Batch
from zoo.tasks.outputs import Outputs


@torch.no_grad()
def collect(
    model: nn.Module,
    batches: Iterable[Batch],
    accelerator: Accelerator,
    *,
    mixed: bool,
    on_batch: Callable[[int], None] | None = None,
) -> Outputs:
    """Run the model, (B, C, H, W) -> (B, classes), in eval mode; returns all processes' outputs in order, in each.

    Args:
        model: Stays in eval mode.
        batches: This process's batches; each image comes once over all processes.
        accelerator: Device, precision and processes.
        mixed: True computes in the run's precision, False in float32.
        on_batch: Called with the number of images done so far.
    """
    model.eval()
    logits, labels, indices = [], [], []
    done = 0
    for batch in batches:
        images = batch.images.to(accelerator.device, non_blocking=True)
        with accelerator.autocast() if mixed else nullcontext():
            logits.append(model(images).float())
        labels.append(batch.labels)
        indices.append(batch.indices)
        done += len(batch.labels)
        if on_batch is not None:
            on_batch(done)
    # With fewer images than processes, some have none.
    own = [tuple(torch.cat(each).cpu() for each in (logits, labels, indices))] if logits else []
    everyone = gather_object(own) if accelerator.num_processes > 1 else own
    predictions, truth, positions = (torch.cat(each) for each in zip(*everyone, strict=True))
    order = positions.argsort()
    return Outputs(predictions[order], truth[order], positions=positions[order])
