"""Freezing: the only place that sets which parameters train and which modules stay in eval mode."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from torch import nn

from zoo.models.derived_groups import is_norm
from zoo.models.layer_groups import Group, added
from zoo.recipes.plan import PhasePlan


def hold(model: nn.Module, groups: Sequence[Group], phase: PhasePlan) -> Freezer:
    """The freezer for the groups that a phase does not train."""
    return Freezer(model, groups, phase.frozen, phase.fixed_norm, phase.adapted)


class Freezer:
    """Freezes groups: no gradients, and their modules in eval mode while the others train.

    `requires_grad=False` alone would leave batch norm statistics moving and dropout active. A module without tensors
    of its own (dropout, activation) goes with the group around it, or else with the next sibling that has tensors.

    Args:
        model: The model that will train; `requires_grad` of all its parameters is set here.
        groups: All groups of the model, from `assign`. A ValueError refuses names below that are not among them.
        frozen: Names of the groups that do not train.
        fixed_norm: Names of groups that train, but whose norm layers keep their stored statistics.
        adapted: Names of groups in which only added tensors train (`layer_groups.added`); norms keep their statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        frozen: Collection[str],
        fixed_norm: Collection[str] = (),
        adapted: Collection[str] = (),
    ) -> None:
        known = {group.name for group in groups}
        unknown = sorted({*frozen, *fixed_norm, *adapted} - known)
        if unknown:
            raise ValueError(f"no layer group named {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
        self._model = model
        declared = {name: group.name for group in groups for name in (*group.parameters, *group.buffers)}
        group_of = declared | added(model, groups)
        still = frozenset(frozen)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(group_of[name] not in (still.union(adapted) if name in declared else still))
        fixed = {*fixed_norm, *adapted} - still
        norms = [path for path, module in model.named_modules() if is_norm(module)]
        self._eval = [
            *_whole_modules(model, "", group_of, still),
            *(model.get_submodule(path) for path in norms if fixed & _groups_below(group_of, path)),
        ]

    def train(self) -> None:
        """Put the model in training mode, except frozen modules and fixed norms. Call it before every epoch."""
        self._model.train()
        for module in self._eval:
            module.eval()


def _whole_modules(
    module: nn.Module, path: str, group_of: dict[str, str], frozen: frozenset[str]
) -> Iterator[nn.Module]:
    """The largest modules, from the one at `path` down, whose tensors are all in frozen groups."""
    groups = _groups_below(group_of, path)
    if not groups & frozen:
        return
    if groups <= frozen:
        yield module
        return
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    owners = [_groups_below(group_of, below) for below, _ in children]
    for index, (below, child) in enumerate(children):
        if owners[index]:
            yield from _whole_modules(child, below, group_of, frozen)
            continue
        neighbour = next(filter(None, (*owners[index + 1 :], *reversed(owners[:index]))), None)
        if neighbour and neighbour <= frozen:
            yield child


def _groups_below(group_of: dict[str, str], path: str) -> set[str]:
    """The groups of the tensors in a module and in its submodules."""
    return {group for name, group in group_of.items() if not path or name.startswith(f"{path}.")}


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, and each module back into its own mode afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
