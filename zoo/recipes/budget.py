"""How much an adaptation may take, in time or in steps, and a recipe's epochs cut to it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe

_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|h)")
_STEPS = re.compile(r"(\d+)[ -]?steps?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Budget:
    """What training may take: exactly one of the two."""

    seconds: float | None = None  # of training, as estimated before it starts
    steps: int | None = None  # optimizer steps

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read what a person wrote: `90s`, `10m`, `1.5h`, `500steps`.

        Raises:
            RecipeError: It is neither a time nor a number of steps, or it is nothing.
        """
        if (time := _TIME.fullmatch(text.strip())) and float(time[1]) > 0:
            return cls(seconds=float(time[1]) * _SECONDS[time[2]])
        if (steps := _STEPS.fullmatch(text.strip())) and int(steps[1]) > 0:
            return cls(steps=int(steps[1]))
        raise RecipeError(
            f"a budget is a time or a number of steps, not {text!r}", fix="such as 90s, 10m, 2h, 500steps"
        )

    def __str__(self) -> str:
        """The budget as a person would write it."""
        if self.steps is not None:
            return f"{self.steps}steps"
        seconds = self.seconds or 0.0
        for unit in ("h", "m"):
            if seconds >= _SECONDS[unit] and (seconds / _SECONDS[unit] * 4).is_integer():
                return f"{seconds / _SECONDS[unit]:g}{unit}"
        return f"{seconds:g}s"


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with so many epochs in all, shared out among its phases in their own proportion.

    Where it does not come out even, the earlier phases get more: their epochs are the cheaper ones.

    Raises:
        RecipeError: There are fewer epochs than phases, or the recipe gives its phases in full.
    """
    if recipe.phases:
        raise RecipeError(
            "a budget decides the epochs, and the phases of this recipe say them already",
            fix="leave out the budget or the phases",
        )
    phases = recipe.expand()
    if epochs < len(phases):
        raise RecipeError(
            f"{epochs} epoch(s) are too few for {len(phases)} phases", fix="allow more, or choose another strategy"
        )
    if len(phases) == 1:
        return replace(recipe, epochs=epochs)
    early = len(phases) - 1
    share = phases[0].epochs / sum(phase.epochs for phase in phases)
    each = max(1, min(math.ceil(round(epochs * share, 6)), (epochs - 1) // early))
    return replace(recipe, probe_epochs=each, epochs=epochs - early * each)
