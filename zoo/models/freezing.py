"""Freezing: which parameters train, and which modules are held in eval mode; the only place that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from torch import nn

from zoo.models.derived_groups import is_norm as is_norm  # part of this module's interface
from zoo.models.layer_groups import Group, added
from zoo.recipes.plan import PhasePlan


def hold(model: nn.Module, groups: Sequence[Group], phase: PhasePlan) -> Freezer:
    """Hold still what a phase does not train."""
    return Freezer(model, groups, phase.frozen, phase.fixed_norm, phase.adapted)


class Freezer:
    """Holds frozen groups still: no gradients, and their modules in eval mode whenever the rest trains.

    `requires_grad=False` alone would leave batch norm statistics moving and dropout active. A module without tensors
    of its own (dropout, activation) goes with the group around it, or else with the next sibling that has tensors.

    Args:
        model: The model that will train; `requires_grad` of all its parameters is set here.
        groups: All groups of the model, from `assign`.
        frozen: Names of the groups that do not train.
        fixed_norm: Names of groups that train, but whose norm layers keep their stored statistics.
        adapted: Names of groups of which only what was added to them trains (`layer_groups.added`); their norm layers
            keep their statistics.

    Raises:
        ValueError: A name is not one of the groups'.
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
        held = frozenset(frozen)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(group_of[name] not in (held.union(adapted) if name in declared else held))
        self._still = tuple(_whole_modules(model, group_of, held))
        fixed = frozenset((*fixed_norm, *adapted)) - held
        self._norms = tuple(
            module
            for path, module in model.named_modules()
            if is_norm(module) and fixed & {group_of[name] for name in _names_below(group_of, path)}
        )

    def train(self) -> None:
        """Put the model in training mode, except for what is frozen or fixed. Call it before every epoch."""
        self._model.train()
        for module in (*self._still, *self._norms):
            module.eval()


def _whole_modules(model: nn.Module, group_of: dict[str, str], held: frozenset[str]) -> Iterator[nn.Module]:
    """The largest modules that belong to held groups altogether."""

    def visit(module: nn.Module, path: str) -> Iterator[nn.Module]:
        touched = {group_of[name] for name in _names_below(group_of, path)}
        if touched and touched <= held:
            yield module
            return
        if not touched & held:
            return
        children = list(module.named_children())
        paths = [f"{path}.{name}" if path else name for name, _ in children]
        owners = [{group_of[name] for name in _names_below(group_of, below)} for below in paths]
        for index, ((_, child), below) in enumerate(zip(children, paths, strict=True)):
            if owners[index]:
                yield from visit(child, below)
                continue
            after = next((owner for owner in owners[index + 1 :] if owner), None)
            before = next((owner for owner in reversed(owners[:index]) if owner), None)
            neighbour = after or before
            if neighbour and neighbour <= held:
                yield child

    yield from visit(model, "")


def _names_below(group_of: dict[str, str], path: str) -> list[str]:
    """The tensors of a module and of everything inside it."""
    return [name for name in group_of if name.startswith(f"{path}.")] if path else list(group_of)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, and every module back into the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
