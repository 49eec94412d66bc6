"""Run a model over images and say how well it did."""

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
    """Run the model in eval mode over batches, each process over its own, and put all outputs in order.

    Args:
        model: Returns (B, classes); put in eval mode here and left so.
        batches: This process's batches; each image comes once over all processes.
        accelerator: Gives device, precision and processes.
        mixed: True computes in the run's precision, False in float32 whatever that is.
        on_batch: Told the number of images done so far.

    Returns:
        The outputs of all processes together, the same in each.
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
    mine = (
        [(torch.cat(logits).cpu(), torch.cat(labels).cpu(), torch.cat(indices).cpu())] if logits else []
    )  # fewer images than processes: this one has none
    everyone = gather_object(mine) if accelerator.num_processes > 1 else mine
    said, truth, places = (torch.cat(found) for found in zip(*everyone, strict=True))
    order = places.argsort()
    return Outputs(said[order], truth[order], positions=places[order])
