"""The learning rate of training from random weights, where the person chose none."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from zoo.models.layer_groups import Group, is_norm
from zoo.recipes.recipe import Recipe
from zoo.training.optim import decays

GENTLE = 10  # times lower than the usual rate


def from_random(recipe: Recipe, model: nn.Module, layers: Sequence[Group]) -> tuple[float | None, str]:
    """The peak rate, and what a person should know about it; None: the strategy's own.

    At the usual rate a network whose weights are mostly without normalisation (AlexNet, and VGG for its fully connected
    layers, with batch norm or without) diverges or stands still. torchvision's own recipes give these a tenth of the
    rate of the others, too.

    A layer group with a normalisation in it counts as normalised, whole.

    Args:
        recipe: The choices.
        model: Any device will do.
        layers: Its layer groups, input to head.
    """
    if recipe.strategy != "scratch" or recipe.lr is not None or recipe.phases:
        return None, ""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if decays(parameter)}
    norms = [f"{name}." for name, module in model.named_modules() if is_norm(module)]
    plain = normed = 0
    for group in layers[:-1]:
        names = (*group.parameters, *group.buffers)
        weights = sum(sizes.get(name, 0) for name in group.parameters)
        if any(name.startswith(norm) for name in names for norm in norms):
            normed += weights
        else:
            plain += weights
    if plain <= normed:
        return None, ""
    rate = float(f"{recipe.preset.lr / GENTLE:.2g}")
    return rate, (
        f"the rate is {rate:g} and not {recipe.preset.lr:g}: most weights of this network have no normalisation, and "
        "from random values they do not learn at more; choose another with --lr"
    )
