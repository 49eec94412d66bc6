"""Recipe x layer groups -> plan: which group trains in which phase, at which rate."""

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
    """What planning has to know of a layer group."""

    name: str
    params: int  # elements in its parameters
    undecayed: int  # of these, in biases and norms, which get no weight decay
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
    """Settle every phase.

    Args:
        recipe: The person's choices, with `lr` a number or None.
        groups: The layer groups, input to head.
        backbone: Full name, for the record.
        dataset: Name, for the record.
        steps_per_epoch: Optimizer steps.
        norm: "live" or "fixed": what `recipe.norm` came to.
        head_steps: Optimizer steps of an epoch in which the head alone trains; None: as many.
        notes: What a person should know before training starts.

    Raises:
        RecipeError: A group that the recipe names does not exist, or nothing would train.
    """
    names = [group.name for group in groups]
    unknown = [name for name in recipe.group_lr if name not in names]
    if unknown:
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
            continue  # fewer groups than steps of unfreezing: the last phase trains them all
        boundaries.append(first)
        settled = _settle(phase, recipe, groups, first, steps_per_epoch, norm)
        phases.append(
            settled if settled.trains_body else replace(settled, steps_per_epoch=head_steps or steps_per_epoch)
        )
    trained = {group.name for phase in phases for group in phase.groups if not group.frozen}
    unused = [name for name, lr in recipe.group_lr.items() if lr and name not in trained]
    if unused:
        raise RecipeError(
            f"a rate is given for {', '.join(unused)}, but no phase trains it",
            fix="start earlier with --train-from, choose another --strategy, or leave the rate out",
        )
    idle = [phase.name for phase in phases if not phase.trained_params]
    if idle:
        raise RecipeError(
            f"nothing trains in {', '.join(idle)}",
            why="every group that the phase unfreezes has rate 0 or no parameters",
            fix="raise --group-lr, or start earlier with --train-from",
        )
    require_body(recipe, trained=any(phase.trains_body for phase in phases))
    return Plan(backbone, dataset, tuple(phases), notes=tuple(notes))


def require_body(recipe: Recipe, *, trained: bool) -> None:
    """Refuse what is about more than the head where nothing else is trained.

    Raises:
        RecipeError: The recipe averages networks before and after their bodies train, or names a method that changes
            features.
    """
    if recipe.wise is not None and not trained:
        raise RecipeError(
            "wise averages the network before and after its body trains, and no phase trains anything but the head",
            fix="leave --wise out, or choose another --strategy",
        )
    if (recipe.align in methods.ALIGNMENT or recipe.semi in methods.SEMI) and not trained:
        raise RecipeError(
            "images without labels change nothing but the features, and no phase trains anything but the head",
            fix="leave --align and --semi out, or choose another --strategy",
        )


def asked_phases(choice: str, phases: Sequence[Phase | PhasePlan], purpose: str) -> list[str]:
    """The phases that an option of auto, on, off or names stands for.

    Args:
        choice: What was chosen.
        phases: All phases.
        purpose: What is done with them, for the message: a verb.

    Raises:
        RecipeError: There is no phase of such a name.
    """
    names = [phase.name for phase in phases]
    if choice in ("auto", "on", "off"):
        return [] if choice == "off" else names
    asked = [name.strip() for name in choice.split(",")]
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise RecipeError(
            f"there is no phase named {', '.join(unknown)} to {purpose}",
            fix=f"the phases are: {', '.join(names)}; or say auto, on or off",
        )
    return asked


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
        fix=f"its groups are, input to head: {', '.join(names)}; or say all, or head-N for N groups before the head",
    )


def _settle(
    phase: Phase, recipe: Recipe, groups: Sequence[GroupFacts], first: int, steps_per_epoch: int, norm: str
) -> PhasePlan:
    decay = recipe.preset.weight_decay if recipe.weight_decay is None else recipe.weight_decay
    settled = []
    for number, group in enumerate(groups):
        distance = len(groups) - 1 - number
        lr = recipe.group_lr.get(group.name, phase.lr * phase.lr_decay**distance)
        frozen = number < first or lr == 0.0
        settled.append(
            GroupPlan(
                name=group.name,
                params=group.params,
                undecayed=group.undecayed,
                lr=0.0 if frozen else lr,
                weight_decay=0.0 if frozen else decay,
                train="none" if frozen else "all",
                norm="none" if not group.has_norm else "frozen" if frozen else norm,
            )
        )
    return PhasePlan(phase.name, phase.epochs, steps_per_epoch, recipe.schedule, recipe.warmup, tuple(settled))
