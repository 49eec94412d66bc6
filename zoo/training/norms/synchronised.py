"""Synchronised batch norm: statistics of the whole batch over all processes."""

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
    """Whether live norms share statistics over processes (CUDA only).

    If one has hooks or is of another kind, none does, so that one answer holds for the model.
    """
    several = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    return several and all(_can_be_replaced(norm) for norm in tracking_norms(model))


def _can_be_replaced(norm: nn.Module) -> bool:
    """Whether it computes what its class does and has no hooks, which would be lost."""
    hooked = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or "forward" in norm.__dict__
    return type(norm) in _KNOWN and not hooked


@contextmanager
def synchronised(
    model: nn.Module, groups: Sequence[Group], phase: PhasePlan, accelerator: Accelerator
) -> Iterator[None]:
    """Replace norms that are live in a phase by synchronised ones, and put the originals back at the end.

    Both have the same parameters, statistics and names, so an optimizer, an average and saved states fit either. Norms
    that are fixed in the phase stay: the frozen part is folded and cached as planned.
    """
    if not synchronises(model, accelerator):
        yield
        return
    hold(model, groups, phase).train()
    live = [(path, norm) for path, norm in model.named_modules(remove_duplicate=False)
            if _can_be_replaced(norm) and norm.training]  # fmt: skip
    replacements = {norm: convert_sync_batchnorm(norm) for _, norm in live}
    for path, norm in live:
        model.set_submodule(path, replacements[norm])
    try:
        yield
    finally:
        for path, norm in live:
            model.set_submodule(path, norm)
