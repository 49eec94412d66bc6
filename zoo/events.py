"""What the engine tells whoever listens. It prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of work that takes a while: reading images, estimating, evaluating."""

    stage: str  # "reading images", "evaluating", …
    done: int
    total: int  # 0: not known


@dataclass(frozen=True, slots=True)
class Note:
    """Something the person should know; training goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class PlanReady:
    """The plan is settled; exactly it will run."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Training begins in a run folder, or goes on there; what follows in `metrics.jsonl` comes after this step."""

    path: str
    recipe: Recipe  # with automatic choices replaced
    plan: Plan
    step: int  # of the whole run, after which it goes on; 0: from the beginning


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of the plan begins (or goes on after a resume)."""

    phase: str
    epochs: int
    steps: int  # optimizer steps in the whole phase
    done_steps: int  # of them done before a resume


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step."""

    phase: str
    epoch: int  # from 1, within the phase
    step: int  # from 1, over the whole run
    loss: float  # mean over the step's images, nats
    rates: Mapping[str, float]  # group -> learning rate used in this step
    parts: Mapping[str, float] = field(default_factory=dict)  # what the objective says of itself, by name


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One pass over the training images, and what the validation images say after it."""

    phase: str
    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    val_accuracy: float | None  # None: not every question is about classes
    seconds: float
    best: bool
    validators: Mapping[str, float] = field(default_factory=dict)  # what target images say, without their labels
    values: Mapping[str, float] = field(default_factory=dict)  # what is not about one class, the one that counts first


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A state from which the run can go on."""

    path: str
    step: int


@dataclass(frozen=True, slots=True)
class ResultReady:
    """The saved model is measured; the card and the report are still to be written."""

    path: str
    record: Mapping[str, Any]  # as run.json is going to be, but for the hashes of files


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run folder is complete."""

    path: str
    record: Mapping[str, Any]


Event = (
    Progress
    | Note
    | PlanReady
    | RunStarted
    | PhaseStarted
    | StepDone
    | EpochDone
    | CheckpointSaved
    | ResultReady
    | RunFinished
)
"""Any of these."""
Listener = Callable[[Event], None]
"""What `on_event` takes."""


def ignore(event: Event) -> None:
    """A listener for those who do not want to know."""


def tee(*listeners: Listener) -> Listener:
    """One listener that tells several, in order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
