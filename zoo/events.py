"""Events that a running job sends to its listener, which shows or records them; the job prints nothing."""

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
    """Something the user should know; training goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class PlanReady:
    """The plan is settled, and will run exactly like this."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Training starts or resumes in a run folder; later lines of `metrics.jsonl` come after this step."""

    path: str
    recipe: Recipe  # with automatic choices replaced
    plan: Plan
    step: int  # of the whole run, after which it resumes; 0: from the start


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of the plan starts, or continues after a resume."""

    phase: str
    epochs: int
    steps: int  # optimizer steps in the whole phase
    done_steps: int  # done before a resume


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step."""

    phase: str
    epoch: int  # from 1, within the phase
    step: int  # from 1, over the whole run
    loss: float  # mean over the step's images, nats
    rates: Mapping[str, float]  # group -> learning rate used in this step
    parts: Mapping[str, float] = field(default_factory=dict)  # terms of the objective, by name


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One pass over the training images, and the validation scores after it."""

    phase: str
    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    val_accuracy: float | None  # None: not every task has classes
    seconds: float
    best: bool
    validators: Mapping[str, float] = field(default_factory=dict)  # scores on unlabelled target images
    values: Mapping[str, float] = field(
        default_factory=dict
    )  # scores of other kinds than one class, the headline score first


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A state from which the run can be resumed."""

    path: str
    step: int


@dataclass(frozen=True, slots=True)
class ResultReady:
    """The saved model is measured; the card and the report are still to be written."""

    path: str
    record: Mapping[str, Any]  # as run.json will be, without the hashes of files


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
"""Any of the events above."""
Listener = Callable[[Event], None]
"""The type of `on_event`."""


def ignore(event: Event) -> None:
    """A listener that ignores every event."""


def tee(*listeners: Listener) -> Listener:
    """One listener that calls several, in order."""

    def call_all(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return call_all
