"""The list of the kinds of task, and how one of another package joins it."""

from __future__ import annotations

from zoo.tasks.kind import Column, Kind
from zoo.tasks.multilabel import MultiLabel
from zoo.tasks.ordinal import Ordinal
from zoo.tasks.regression import Regression
from zoo.tasks.schema import FACTS, Task
from zoo.tasks.single_label import SingleLabel

KINDS: dict[str, Kind] = {kind.facts.name: kind for kind in (MultiLabel(), Regression(), Ordinal(), SingleLabel())}


def register(kind: Kind) -> None:
    """Add a kind: its row of facts, and what it answers."""
    FACTS[kind.facts.name] = kind.facts
    KINDS[kind.facts.name] = kind


def of(task: Task) -> Kind:
    """The kind of a task."""
    return KINDS[task.kind]


def guessed(column: Column) -> tuple[Kind, str]:
    """The kind that a column looks like, where nobody said so, and what a person should know about that."""
    classes = KINDS[SingleLabel.facts.name]  # which claims whatever is left
    for kind in (*(kind for kind in KINDS.values() if kind is not classes), classes):
        note = kind.claims(column)
        if note is not None:
            return kind, note
    raise AssertionError("classes claim every column")
