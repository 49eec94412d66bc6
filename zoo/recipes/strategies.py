"""Phases, and the presets of strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from zoo.base.untrusted import is_finite

Augment = Literal["none", "light", "standard", "strong"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with its own optimizer, schedule and freeze boundary."""

    name: str  # "probe", "finetune", …; appears in the plan and the metrics
    epochs: int  # passes over the training images
    lr: float  # peak rate of the head
    train_from: str  # first group that trains: a group's name, "head", "all", or "head-N" (N groups before the head)
    lr_decay: float = 1.0  # each earlier group's rate is this times the next one's

    def record(self) -> dict[str, Any]:
        """The phase as plain values."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True, slots=True)
class Preset:
    """A strategy's defaults; measured, see docs/recipes.md."""

    epochs: int
    lr: float
    lr_decay: float
    weight_decay: float
    augment: Augment
    probe_epochs: int = 0
    probe_lr: float = 0.0


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "probe": Preset(epochs=10, lr=1e-2, lr_decay=1.0, weight_decay=0.05, augment="none"),
        "partial": Preset(epochs=10, lr=3e-3, lr_decay=0.8, weight_decay=0.05, augment="light"),
        "finetune": Preset(epochs=10, lr=1e-3, lr_decay=0.8, weight_decay=0.05, augment="light"),
        "gradual": Preset(epochs=5, lr=1e-3, lr_decay=0.8, weight_decay=0.05, augment="light", probe_epochs=2),
        "lp-ft": Preset(
            epochs=10, lr=1e-3, lr_decay=0.8, weight_decay=0.05, augment="light", probe_epochs=10, probe_lr=3e-3
        ),
        "scratch": Preset(epochs=50, lr=3e-3, lr_decay=1.0, weight_decay=0.05, augment="standard"),
    }
)


def phase_faults(phases: Any) -> list[str]:
    """All faults of a recipe's phases."""
    if not isinstance(phases, list | tuple):
        return ["phases: must be a list of phases"]
    faults, names = [], set[str]()
    for number, phase in enumerate(phases):
        where = f"phases[{number}]"
        if not isinstance(phase, Phase):
            faults.append(f"{where}: must be a phase")
            continue
        if not isinstance(phase.name, str) or not phase.name or phase.name in names:
            faults.append(f"{where}.name: must be a text of its own")
        names.add(str(phase.name))
        if not isinstance(phase.epochs, int) or isinstance(phase.epochs, bool) or phase.epochs < 1:
            faults.append(f"{where}.epochs: must be a whole number of at least 1")
        if not is_finite(phase.lr) or not 0 < phase.lr <= 100:
            faults.append(f"{where}.lr: must be a number above 0")
        if not is_finite(phase.lr_decay) or not 0 <= phase.lr_decay <= 1:
            faults.append(f"{where}.lr_decay: must lie between 0 and 1")
        if not isinstance(phase.train_from, str) or not phase.train_from:
            faults.append(f"{where}.train_from: must name a layer group")
    return faults
