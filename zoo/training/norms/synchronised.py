"""Batch norm over all processes: statistics of a whole batch, where each process holds a part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from accelerate import Accelerator
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from zoo.models.freezing import hold
from zoo.models.layer_groups import Group
from zoo.recipes.plan import PhasePlan
from zoo.training.norms.reestimate import tracking_norms

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)  # a subclass may compute something else


def synchronises(model: nn.Module, accelerator: Accelerator) -> bool:
    """Whether live batch norms take their statistics over all processes, as torch can on CUDA alone.

    A model with any norm of another kind that keeps statistics, or with one that somebody looks into, is left as it is,
    so that one answer holds for all.

    Args:
        model: The model.
        accelerator: Device and processes.
    """
    several = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    return several and all(_can_be_exchanged(norm) for norm in tracking_norms(model))


def _can_be_exchanged(norm: nn.Module) -> bool:
    """Whether it does what its class does and nothing else; hooks would be lost."""
    hooked = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or "forward" in norm.__dict__
    return type(norm) in _KNOWN and not hooked


@contextmanager
def synchronised(
    model: nn.Module, groups: Sequence[Group], phase: PhasePlan, accelerator: Accelerator
) -> Iterator[None]:
    """Put synchronised norms in the place of those that are live in a phase, and the others back at the end.

    Nothing happens where statistics are not shared.

    Both have the same parameters, statistics and names, so that an optimizer, an average and saved states fit either.
    Norms that are still in the phase are left alone: the frozen part is folded and kept as it was planned.

    Args:
        model: The model on its devices.
        groups: Its layer groups.
        phase: What trains.
        accelerator: Device and processes.
    """
    if not synchronises(model, accelerator):
        yield
        return
    hold(model, groups, phase).train()
    live = [(path, norm) for path, norm in model.named_modules(remove_duplicate=False)
            if _can_be_exchanged(norm) and norm.training]  # fmt: skip
    others = {norm: convert_sync_batchnorm(norm) for _, norm in live}
    for path, norm in live:
        model.set_submodule(path, others[norm])
    try:
        yield
    finally:
        for path, norm in live:
            model.set_submodule(path, norm)
