"""The list of the kinds of task, and how to register another."""

from __future__ import annotations

from zoo.tasks.kind import Column, Kind
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.ordinal import Ordinal
from zoo.tasks.regression import Regression
from zoo.tasks.schema import FACTS, Task
from zoo.tasks.single_label import SingleLabel

KINDS: dict[str, Kind] = {kind.facts.name: kind for kind in (MultiLabel(), Regression(), Ordinal(), SingleLabel())}


def register(kind: Kind) -> None:
    """Add a kind and its row of facts."""
    FACTS[kind.facts.name] = kind.facts
    KINDS[kind.facts.name] = kind


def of(task: Task) -> Kind:
    """The kind of a task."""
    return KINDS[task.kind]


def guessed(column: Column) -> tuple[Kind, str]:
    """The kind that a column looks like, and a note for the user, perhaps empty."""
    last = KINDS[SingleLabel.facts.name]  # claims every column
    kinds = (*(kind for kind in KINDS.values() if kind is not last), last)
    return next((kind, note) for kind in kinds if (note := kind.claims(column)) is not None)
