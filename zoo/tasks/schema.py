"""What a head answers: one question or several, of which kind each is, and which of its outputs belong to which.

The outputs of several tasks stand side by side in one linear head, which is exactly a linear head for each: the network
stays an ordinary timm model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from zoo.base.fields import mapping_faults
from zoo.base.references import HUB_DATA
from zoo.base.untrusted import is_finite

Kind = Literal["single-label", "multi-label", "regression", "ordinal"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERAL = "multi-task"  # what a model with more than one task answers
MEASURES = {"map": "mAP", "r2": "R²", "score": "mean score"}  # what is called otherwise than its key
SHARES = ("accuracy", "mAP")  # of these, and what is called as its key, what is written in per cent
_HEADLINES = {"multi-label": "map", "regression": "r2", "ordinal": "kappa", "multi-task": "score"}
UNASKED = "label"  # name of the one task of a run that has several labels an image and was not asked for tasks


@dataclass(frozen=True, slots=True)
class Task:
    """One question that is asked of every image."""

    name: str  # unique among a model's tasks
    kind: Kind
    classes: tuple[str, ...] = ()  # or labels, or steps from low to high; a quantity has none
    thresholds: tuple[float, ...] = ()  # multi-label: the probability from which each label is given, once chosen
    mean: float = 0.0  # of the training images' values, where they are numbers
    std: float = 1.0  # the same

    @property
    def outputs(self) -> int:
        """Outputs of the head: one less than steps, for each says whether an image is above a step."""
        if self.kind == "regression":
            return 1
        return len(self.classes) - (self.kind == "ordinal")

    @property
    def columns(self) -> int:
        """Numbers that a true answer takes: 0 or 1 for each label, else one."""
        return len(self.classes) if self.kind == "multi-label" else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each output is called where classes are named."""
        if self.kind == "regression":
            return (self.name,)
        return tuple(f"above {step}" for step in self.classes[:-1]) if self.kind == "ordinal" else self.classes

    def record(self) -> dict[str, Any]:
        """The task as plain values; what is empty is left out."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind == "regression":
            return found | {"mean": self.mean, "std": self.std}
        found["classes"] = list(self.classes)
        return found | ({"thresholds": list(self.thresholds)} if self.thresholds else {})

    @classmethod
    def from_record(cls, record: Any) -> Task:
        """Read a task back.

        Raises:
            ValueError: It is no task; the message says why.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("name"), str) or not record["name"]:
            raise ValueError("a task must be a mapping with a name")
        name, kind = record["name"], record.get("kind")
        classes, thresholds = record.get("classes", []), record.get("thresholds", [])
        if kind not in KINDS:
            raise ValueError(f"the kind of task {name[:60]!r} is none of {', '.join(KINDS)}")
        if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
            raise ValueError(f"the classes of task {name[:60]!r} must be a list of texts")
        least = {"regression": 0, "multi-label": 1}.get(kind, 2)
        if len(classes) < least or (kind == "regression" and classes) or len(set(classes)) != len(classes):
            raise ValueError(f"{len(classes)} classes are not what the {kind} task {name[:60]!r} can have")
        if not isinstance(thresholds, list) or not all(is_finite(value) and 0 <= value <= 1 for value in thresholds):
            raise ValueError(f"the thresholds of task {name[:60]!r} must lie between 0 and 1")
        if thresholds and (kind != "multi-label" or len(thresholds) != len(classes)):
            raise ValueError(f"{len(thresholds)} thresholds for {len(classes)} labels of task {name[:60]!r}")
        numbers = [record.get("mean", 0.0), record.get("std", 1.0)]
        if not all(map(is_finite, numbers)) or numbers[1] <= 0:
            raise ValueError(f"mean and deviation of task {name[:60]!r} must be numbers, the second above 0")
        return cls(name, kind, tuple(classes), tuple(map(float, thresholds)), float(numbers[0]), float(numbers[1]))


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a person asks for it: NAME=DATASET[:COLUMN[:KIND]]."""

    name: str
    dataset: str  # as `--dataset` takes it
    column: str | None = None  # of a table; several with commas between are a label each
    kind: Kind | None = None  # None: as the column looks
    steps: tuple[str, ...] = ()  # of an ordinal task, from low to high

    @classmethod
    def parse(cls, text: Any) -> TaskSpec:
        """Read what was typed.

        Raises:
            ValueError: It is no task; the message says why.
        """
        form = "write NAME=DATASET[:COLUMN[:KIND]], such as age=people.csv:age:regression"
        if not isinstance(text, str) or "=" not in text:
            raise ValueError(f"{text!r} is no task; {form}")
        name, _, rest = text.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(f"the name {name!r} must be of letters, digits, _, - and .; {form}")
        prefix = HUB_DATA if rest.startswith(HUB_DATA) else ""
        dataset, *more = rest.removeprefix(prefix).split(":")
        if not dataset or len(more) > 2 or not all(more):
            raise ValueError(f"{text!r} is no task; {form}")
        said = more[1] if len(more) > 1 else None
        steps = tuple(said.split("<")) if said and "<" in said else ()
        if steps and (not all(steps) or len(set(steps)) != len(steps)):
            raise ValueError(f"the steps {said!r} must be different texts with < between")
        kind = next((kind for kind in KINDS if kind == ("ordinal" if steps else said)), None)
        if said is not None and kind is None:
            raise ValueError(f"the kind {said!r} is none of {', '.join(KINDS)}, nor steps such as low<middle<high")
        return cls(name, prefix + dataset, more[0] if more else None, kind, steps)

    def __str__(self) -> str:
        """As it is typed."""
        said = "<".join(self.steps) or self.kind
        return f"{self.name}={':'.join(part for part in (self.dataset, self.column, said) if part)}"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a task stands."""

    task: Task
    outputs: slice  # among the head's outputs
    columns: slice  # among the numbers of an image's true answers


def spans(tasks: Sequence[Task]) -> Iterator[Span]:
    """The tasks in order, each with its place."""
    output = column = 0
    for task in tasks:
        yield Span(task, slice(output, output + task.outputs), slice(column, column + task.columns))
        output, column = output + task.outputs, column + task.columns


def output_names(tasks: Sequence[Task]) -> tuple[str, ...]:
    """What the outputs of all tasks are called: with the task's name where there are several."""
    if len(tasks) == 1:
        return tasks[0].output_names
    return tuple(
        name if task.kind == "regression" else f"{task.name}: {name}" for task in tasks for name in task.output_names
    )


def problem(tasks: Sequence[Task]) -> str:
    """What a model answers: its only task's kind, or "multi-task"; without tasks one of its classes."""
    if not tasks:
        return "single-label"
    return tasks[0].kind if len(tasks) == 1 else SEVERAL


def task_faults(tasks: Any, weights: Any) -> list[str]:
    """What is wrong with a recipe's tasks and their weights, all of it."""
    if not isinstance(tasks, list | tuple):
        return ["tasks: must be a list of texts"]
    faults, names = mapping_faults("task_weights", weights), []
    for text in tasks:
        try:
            names.append(TaskSpec.parse(text).name)
        except ValueError as error:
            faults.append(f"tasks: {error}")
    faults += [f"tasks: two are called {name}" for name in sorted({name for name in names if names.count(name) > 1})]
    if not faults:
        faults += [f"task_weights[{name}]: there is no such task" for name in sorted(set(weights) - set(names))]
    return faults


def headline(result: Mapping[str, Any]) -> tuple[str, float | None]:
    """The number that a result is known by, with its name."""
    key = _HEADLINES.get(str(result.get("problem")), "accuracy")
    return MEASURES.get(key, key), result.get(key)


def whole_numbers(texts: Sequence[str]) -> bool:
    """Whether all are whole numbers, as texts."""
    return all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in texts)


LabelLoss = Literal["bce", "asymmetric"]
