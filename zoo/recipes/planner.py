"""Planner: recipe x layer groups -> plan, which settles each group's rate in each phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo.errors import RecipeError
from zoo.recipes import methods
from zoo.recipes.plan import GroupPlan, PhasePlan, Plan
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import Phase


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """The facts of a layer group that planning needs."""

    name: str
    params: int  # elements in its parameters
    undecayed: int  # elements in biases and norms, which get no weight decay
    has_norm: bool  # whether it keeps running statistics


def make_plan(
    recipe: Recipe,
    groups: Sequence[GroupFacts],
    *,
    backbone: str,
    dataset: str,
    steps_per_epoch: int,
    norm: str,
    head_steps: int | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Settle every phase; raises RecipeError if the recipe names an unknown group or nothing would train.

    Args:
        recipe: Its `lr` must be a number or None.
        groups: The layer groups, input to head.
        backbone: Full name, for the record.
        dataset: Name, for the record.
        steps_per_epoch: Optimizer steps.
        norm: "live" or "fixed", the settled `recipe.norm`.
        head_steps: Optimizer steps of an epoch if only the head trains; None: `steps_per_epoch`.
        notes: For the user, before training starts.
    """
    names = [group.name for group in groups]
    if unknown := [name for name in recipe.group_lr if name not in names]:
        raise RecipeError(
            f"{backbone} has no layer group named {', '.join(repr(name) for name in unknown)}",
            fix=f"its groups are, input to head: {', '.join(names)}",
        )
    phases: list[PhasePlan] = []
    boundaries: list[int] = []
    for phase in recipe.expand():
        first = _first_trained(phase.train_from, names, backbone)
        early = recipe.strategy == "gradual" and not recipe.phases and phase.name != "finetune"
        if early and (first == 0 or first in boundaries):
            continue  # fewer groups than unfreezing phases: the last phase trains them all
        boundaries.append(first)
        settled = _settle(phase, recipe, groups, first, steps_per_epoch, norm)
        steps = steps_per_epoch if settled.trains_body else head_steps or steps_per_epoch
        phases.append(replace(settled, steps_per_epoch=steps))
    trained = {group.name for phase in phases for group in phase.groups if not group.frozen}
    if unused := [name for name, lr in recipe.group_lr.items() if lr and name not in trained]:
        raise RecipeError(
            f"a rate is given for {', '.join(unused)}, but no phase trains it",
            fix="start earlier with --train-from, choose another --strategy, or leave the rate out",
        )
    if idle := [phase.name for phase in phases if not phase.trained_params]:
        raise RecipeError(
            f"nothing trains in {', '.join(idle)}",
            why="every group that the phase unfreezes has rate 0 or no parameters",
            fix="raise --group-lr, or start earlier with --train-from",
        )
    require_body(recipe, trained=any(phase.trains_body for phase in phases))
    return Plan(backbone, dataset, tuple(phases), notes=tuple(notes))


def require_body(recipe: Recipe, *, trained: bool) -> None:
    """Raise RecipeError if the body is not trained but the recipe has WiSE-FT or a method that changes features."""
    if recipe.wise is not None and not trained:
        raise RecipeError(
            "wise averages the network before and after its body trains, and no phase trains anything but the head",
            fix="leave --wise out, or choose another --strategy",
        )
    if (recipe.align in methods.ALIGNMENT or recipe.semi in methods.SEMI) and not trained:
        raise RecipeError(
            "unlabelled images change nothing but the features, and no phase trains anything but the head",
            fix="leave --align and --semi out, or choose another --strategy",
        )


def asked_phases(choice: str, phases: Sequence[Phase | PhasePlan], purpose: str) -> list[str]:
    """The phases that an option of auto, on, off or names stands for.

    Raises RecipeError for an unknown name; `purpose` completes the message: a verb.
    """
    names = [phase.name for phase in phases]
    if choice in ("auto", "on", "off"):
        return [] if choice == "off" else names
    chosen = [name.strip() for name in choice.split(",")]
    if unknown := [name for name in chosen if name not in names]:
        raise RecipeError(
            f"there is no phase named {', '.join(unknown)} to {purpose}",
            fix=f"name some of {', '.join(names)}, or use auto, on or off",
        )
    return chosen


def _first_trained(boundary: str, names: list[str], backbone: str) -> int:
    if boundary in names:
        return names.index(boundary)
    if boundary == "all":
        return 0
    word, _, count = boundary.rpartition("-")
    if word == "head" and count.isdigit():
        return max(0, len(names) - 1 - int(count))
    raise RecipeError(
        f"{backbone} has no layer group named {boundary!r}",
        fix=f"its groups are, input to head: {', '.join(names)}; or use all, or head-N for N groups before the head",
    )


def _settle(
    phase: Phase, recipe: Recipe, groups: Sequence[GroupFacts], first: int, steps_per_epoch: int, norm: str
) -> PhasePlan:
    decay = recipe.preset.weight_decay if recipe.weight_decay is None else recipe.weight_decay
    settled = []
    for number, group in enumerate(groups):
        lr = recipe.group_lr.get(group.name, phase.lr * phase.lr_decay ** (len(groups) - 1 - number))
        frozen = number < first or lr == 0.0
        norms = ("frozen" if frozen else norm) if group.has_norm else "none"
        trained = GroupPlan(group.name, group.params, group.undecayed, lr, decay, "all", norms)
        settled.append(replace(trained, lr=0.0, weight_decay=0.0, train="none") if frozen else trained)
    return PhasePlan(phase.name, phase.epochs, steps_per_epoch, recipe.schedule, recipe.warmup, tuple(settled))
