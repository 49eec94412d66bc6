"""Tasks: what a head answers, of which kind each is, and which of its outputs belong to which.

The outputs of several tasks stand side by side in one linear head, which is exactly a linear head for each: the network
stays an ordinary timm model. There is always at least one task: images of one class each have one that nobody asked
for, and that no record speaks of.

What is known of a kind without tensors is a row of `FACTS`; the rest is one file beside this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from zoo.base.fields import mapping_faults
from zoo.base.references import HUB_DATA
from zoo.base.text import number, percent
from zoo.base.untrusted import is_finite

Target = tuple[float, ...]
"""An image's true answers side by side (see `spans`); NaN where one is not known."""

NAN = math.nan  # not known: it counts neither in the loss nor in a measure
SEVERAL = "multi-task"  # what a model with more than one task answers
UNASKED = "label"  # name of the one task of a run that was not asked for tasks
Problem = Literal["auto", "single-label", "multi-label"]  # of images with one column of labels
ONE: Final = "single-label"  # the kinds that such images have: this, or several labels each
MANY: Final = "multi-label"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that a result has."""

    key: str
    label: str = ""  # what people call it; empty: as its key
    share: bool = False  # whether it is written in per cent
    hub: tuple[str, str] | None = None  # the Hub's id of it, and what it is called there

    @property
    def name(self) -> str:
        """What people call it."""
        return self.label or self.key


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a kind of task without tensors."""

    name: str
    measures: tuple[Measure, ...]  # that every result has; it is known by the first
    guess: str  # what its baseline is
    least: int = 0  # classes that it needs; 0: it has none
    noun: str = "class"  # what one of them is called
    losses: tuple[str, ...] = ()  # names of those that there are to choose from, the usual one first
    several: bool = False  # whether an image may have several of the classes: a true answer is 1 or 0 for each of them
    alone: bool = False  # whether as the only task it is chosen by its own scores, and logged without a name
    chance: bool = False  # whether what it is known by is 0 for whoever guesses
    scaled: bool = False  # whether the trained head is put into the task's own unit, for which it needs a bias
    keeps: tuple[str, ...] = ()  # what a task's record has beside its classes: "thresholds", "mean", "std"
    pipeline: str = "regression"  # what transformers' pipeline takes it for; this: no classes, so no softmax
    outputs: Callable[[Task], tuple[str, ...]] = lambda task: task.classes  # what each output of the head is called


_MACRO_F1 = Measure("macro_f1", hub=("f1", "Macro-F1"))
_ACCURACY = Measure("accuracy", share=True, hub=("accuracy", "Accuracy"))
_MAP = Measure("map", "mAP", share=True, hub=("mean_average_precision", "mAP"))
_R2 = Measure("r2", "R²", hub=("r_squared", "R squared"))
FACTS: dict[str, Facts] = {facts.name: facts for facts in (
    Facts(ONE, (_ACCURACY, _MACRO_F1, Measure("top5"), Measure("ece")), "always guessing the commonest class", least=2,
          losses=("cross-entropy",), pipeline="single_label_classification"),
    Facts(MANY, (_MAP, Measure("accuracy"), _MACRO_F1, Measure("micro_f1")), "guessing by how common labels are",
          least=1, noun="label", losses=("bce", "asymmetric"), several=True, alone=True, keeps=("thresholds",),
          pipeline="multi_label_classification"),
    Facts("regression", (_R2, Measure("mae", hub=("mae", "Mean error")), Measure("rmse")), "always guessing the mean",
          chance=True, scaled=True, keeps=("mean", "std"), outputs=lambda task: (task.name,)),
    Facts("ordinal", (Measure("kappa"), _ACCURACY, Measure("mae", hub=("mae", "Mean distance"))),
          "always guessing the same step", least=2, noun="step", chance=True,
          outputs=lambda task: tuple(f"above {step}" for step in task.classes[:-1])),
)}  # fmt: skip
ORDINAL = "ordinal"  # the kind that a person asks for by writing steps, low<high
_SCORE = Measure("score", "mean score")  # of several tasks


@dataclass(frozen=True, slots=True)
class Task:
    """One question that is asked of every image."""

    name: str  # unique among a model's tasks
    kind: str  # a key of `FACTS`
    classes: tuple[str, ...] = ()  # or labels, or steps from low to high; a quantity has none
    thresholds: tuple[float, ...] = ()  # multi-label: the probability from which each label is given, once chosen
    mean: float = 0.0  # of the training images' values, where they are numbers
    std: float = 1.0  # the same
    plain: bool = False  # of images of one class each, where nobody asked for a task: no record speaks of it

    @property
    def facts(self) -> Facts:
        """What is known of its kind."""
        return FACTS[self.kind]

    @property
    def outputs(self) -> int:
        """Outputs of the head."""
        return len(self.output_names)

    @property
    def columns(self) -> int:
        """Numbers that a true answer takes: 0 or 1 for each label, else one."""
        return len(self.classes) if self.facts.several else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each output is called where classes are named."""
        return self.facts.outputs(self)

    def record(self) -> dict[str, Any]:
        """The task as plain values; what is empty is left out."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.facts.least:
            found["classes"] = list(self.classes)
        kept = {key: getattr(self, key) for key in self.facts.keeps}
        return found | {key: list(value) if isinstance(value, tuple) else value
                        for key, value in kept.items() if value != ()}  # fmt: skip

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
        if not isinstance(kind, str) or kind not in FACTS:
            raise ValueError(f"the kind of task {name[:60]!r} is none of {', '.join(FACTS)}")
        facts = FACTS[kind]
        if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
            raise ValueError(f"the classes of task {name[:60]!r} must be a list of texts")
        if len(classes) < facts.least or (not facts.least and classes) or len(set(classes)) != len(classes):
            raise ValueError(f"{len(classes)} classes are not what the {kind} task {name[:60]!r} can have")
        if not isinstance(thresholds, list) or not all(is_finite(value) and 0 <= value <= 1 for value in thresholds):
            raise ValueError(f"the thresholds of task {name[:60]!r} must lie between 0 and 1")
        if thresholds and ("thresholds" not in facts.keeps or len(thresholds) != len(classes)):
            raise ValueError(f"{len(thresholds)} thresholds for {len(classes)} labels of task {name[:60]!r}")
        numbers = [record.get("mean", 0.0), record.get("std", 1.0)]
        if not all(map(is_finite, numbers)) or numbers[1] <= 0:
            raise ValueError(f"mean and deviation of task {name[:60]!r} must be numbers, the second above 0")
        return cls(name, kind, tuple(classes), tuple(map(float, thresholds)), float(numbers[0]), float(numbers[1]))


def one_class(classes: Iterable[Any]) -> tuple[Task]:
    """The task of images of one class each."""
    return (Task(UNASKED, ONE, tuple(map(str, classes)), plain=True),)


def is_plain(tasks: Sequence[Task]) -> bool:
    """Whether images are of one class each, and nobody asked for tasks."""
    return all(task.plain for task in tasks)


def alone(task: Task) -> Task:
    """A task as the only one that a model answers: one of classes is what any classifier has."""
    return one_class(task.classes)[0] if task.kind == ONE else task


def tasks_of(records: Any, classes: Iterable[Any]) -> tuple[Task, ...]:
    """What a record says that images answer; where it says nothing, of which of these classes they are.

    Raises:
        ValueError: That is not what tasks look like.
    """
    return tuple(Task.from_record(record) for record in records or ()) or one_class(classes)


def task_records(tasks: Sequence[Task]) -> dict[str, Any]:
    """`tasks` as a record has it: nothing where images are of one class each."""
    return {} if is_plain(tasks) else {"tasks": [task.record() for task in tasks]}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a person asks for it: NAME=DATASET[:COLUMN[:KIND]]."""

    name: str
    dataset: str  # as `--dataset` takes it
    column: str | None = None  # of a table; several with commas between are a label each
    kind: str | None = None  # None: as the column looks
    levels: tuple[str, ...] = ()  # of an ordinal task, from low to high

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
        levels = tuple(said.split("<")) if said and "<" in said else ()
        if levels and (not all(levels) or len(set(levels)) != len(levels)):
            raise ValueError(f"the steps {said!r} must be different texts with < between")
        kind = ORDINAL if levels else said
        if kind is not None and kind not in FACTS:
            raise ValueError(f"the kind {said!r} is none of {', '.join(FACTS)}, nor steps such as low<middle<high")
        return cls(name, prefix + dataset, more[0] if more else None, kind, levels)

    @property
    def plain(self) -> bool:
        """Whether images with one class each, and no columns, answer it."""
        return self.column is None and self.kind in (None, ONE)

    def __str__(self) -> str:
        """As it is typed."""
        said = "<".join(self.levels) or self.kind
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
    return tuple(f"{task.name}: {name}" if task.classes else name for task in tasks for name in task.output_names)


def problem(tasks: Sequence[Task]) -> str:
    """What a model answers: its only task's kind, or "multi-task"."""
    return tasks[0].kind if len(tasks) == 1 else SEVERAL


def pipeline(tasks: Sequence[Task]) -> str:
    """What transformers' pipeline takes a model for: a sigmoid for labels, no softmax over what are no classes."""
    return tasks[0].facts.pipeline if len(tasks) == 1 else "regression"


def scored_alone(tasks: Sequence[Task]) -> bool:
    """Whether there is one task that is chosen by its own scores; any others are by the mean of theirs."""
    return len(tasks) == 1 and (tasks[0].plain or tasks[0].facts.alone)


def merits(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The scores on labelled images that an epoch may be chosen by, the one of the result first."""
    return (tasks[0].facts.measures[0].key, "loss", "refinement") if scored_alone(tasks) else (_SCORE.key, "loss")


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


def facts_of(result: Mapping[str, Any]) -> Facts:
    """Of which kind a result is; one that does not say so is of one class of each image."""
    return FACTS.get(str(result.get("problem")), FACTS[ONE])


def headline(result: Mapping[str, Any]) -> tuple[str, float | None]:
    """The number that a result is known by, with its name."""
    found = _SCORE if result.get("problem") == SEVERAL else facts_of(result).measures[0]
    return found.name, result.get(found.key)


def headlines() -> dict[str, Measure]:
    """Every number that some result is known by, by its key."""
    return {found.key: found for found in (*(facts.measures[0] for facts in FACTS.values()), _SCORE)}


def is_share(name: str) -> bool:
    """Whether a headline of this name is written in per cent."""
    return any(found.share for found in headlines().values() if found.name == name)


def written(name: str, value: float | None) -> str:
    """A headline of this name: `97.2%` where it is a share, else `0.720`."""
    return percent(value) if is_share(name) else number(value)


def measure_name(key: str) -> str:
    """What a number of an epoch is called."""
    return headlines().get(key, Measure(key)).name


def whole_numbers(texts: Sequence[str]) -> bool:
    """Whether all are whole numbers, as texts."""
    return all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in texts)


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: whole numbers by value, texts by their characters."""
    found = sorted(set(labels))
    return tuple(sorted(found, key=lambda label: (int(label), label)) if whole_numbers(found) else found)


def number_of(text: str) -> float | None:
    """The finite number that a text means, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
