"""Backbones to compare or rank: named with their weights, or all whose weights are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.base import files
from zoo.errors import RecipeError, ZooError
from zoo.models import lookup
from zoo.models.weights import at_hand, resolve_weights


@dataclass(frozen=True, slots=True)
class Entrant:
    """One backbone with its weights."""

    backbone: str  # full name
    weights: str  # as `Recipe.weights` takes it; a path is absolute

    @property
    def short(self) -> str:
        """The name without its plugin."""
        return self.backbone.rpartition("/")[2]

    def __str__(self) -> str:
        """As a user would write it."""
        return self.backbone if self.weights == "default" else f"{self.backbone}={self.weights}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A backbone that is left out, and why."""

    backbone: str
    why: str
    fix: str = ""

    def record(self) -> dict[str, str]:
        """Plain values."""
        return {"backbone": self.backbone, "why": self.why, "fix": self.fix}


def named(texts: Sequence[str]) -> list[Entrant]:
    """Parse `NAME` or `NAME=WEIGHTS`; raises PluginError or WeightsError if unknown, RecipeError if named twice."""
    found: list[Entrant] = []
    for text in texts:
        name, _, weights = text.partition("=")
        spec = lookup.get(name)
        chosen = weights or "default"
        resolve_weights(spec, chosen)
        if Path(chosen).expanduser().exists() and chosen not in {each.name for each in spec.weights}:
            chosen = str(Path(chosen).expanduser().resolve())
        # A tag in the name chooses the weights; the full name alone would lose it.
        if chosen == "default" and spec.weights and name.rpartition("/")[2] != spec.name:
            chosen = spec.weights[0].name
        entrant = Entrant(spec.full_name, chosen)
        if entrant in found:
            raise RecipeError(f"{entrant} is named twice", fix="name it once, or with other weights: NAME=WEIGHTS")
        found.append(entrant)
    return found


def every() -> tuple[list[Entrant], list[LeftOut]]:
    """All declared backbones with weights on this machine; and the others, with reasons."""
    found, left_out = [], []
    for spec in lookup.backbones():
        try:
            local = next((weights for weights in spec.weights if at_hand(spec, weights)), None)
        except ZooError as error:
            left_out.append(LeftOut(spec.full_name, error.what, error.fix))
            continue
        if local is None:
            fix = f"fetch them by naming it: zoo rank {spec.full_name} …"
            left_out.append(LeftOut(spec.full_name, "its weights are not on this machine", fix))
        else:
            found.append(Entrant(spec.full_name, "default" if local is spec.weights[0] else local.name))
    return found, left_out


def labels(entrants: Sequence[Entrant]) -> list[str]:
    """A short, unique name for each, valid as a folder's name."""
    shorts = [entrant.short for entrant in entrants]
    texts = [
        files.slug(entrant.short if shorts.count(entrant.short) == 1 else f"{entrant.short}-{_origin(entrant.weights)}")
        for entrant in entrants
    ]
    return [
        text if texts.count(text) == 1 else f"{text}-{texts[:place].count(text) + 1}"
        for place, text in enumerate(texts)
    ]


def _origin(weights: str) -> str:
    """`runs/scratch` and `weights/tiny.safetensors` as `scratch` and `tiny`."""
    path = Path(weights)
    return path.stem if path.suffix in (".safetensors", ".pth") else path.name
