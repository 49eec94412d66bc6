"""Schema of tasks: their kinds, and the outputs and targets of each, without tensors.

The outputs of several tasks are concatenated in one linear head, which equals a linear head for each: the network stays
an ordinary timm model. There is always at least one task: images of one class each have a plain one, which no record
mentions. A kind is a row of `FACTS` here, and one file with what needs tensors.
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
"""An image's targets of all tasks, concatenated (see `spans`); NaN if unknown."""

NAN = math.nan  # unknown: it counts neither in the loss nor in a measure
SEVERAL = "multi-task"  # the problem of a model with more than one task
UNASKED = "label"  # name of the one task of a run without named tasks
Problem = Literal["auto", "single-label", "multi-label"]  # of images with one column of labels
ONE: Final = "single-label"
MANY: Final = "multi-label"
ORDINAL: Final = "ordinal"  # named by its levels, low<high


@dataclass(frozen=True, slots=True)
class Measure:
    """A number in a result."""

    key: str
    label: str = ""  # in text; empty: the key
    share: bool = False  # whether it is written in per cent
    hub: tuple[str, str] | None = None  # id and name on the Hub

    @property
    def name(self) -> str:
        """Its name in text."""
        return self.label or self.key


@dataclass(frozen=True, slots=True)
class Facts:
    """A kind of task, without tensors."""

    name: str
    measures: tuple[Measure, ...]  # in every result; the first is the headline
    guess: str  # the baseline, in words
    least: int = 0  # classes that it needs; 0: it has none
    noun: str = "class"  # for one of them
    losses: tuple[str, ...] = ()  # names of its losses for `label_loss`, see `LOSSES` in its file
    several: bool = False  # whether an image may have several of the classes: a target is 1 or 0 for each of them
    alone: bool = False  # as the only task: its own scores select the epoch, and it is logged without its name
    chance: bool = False  # whether the headline measure of a guess is 0
    scaled: bool = False  # whether the trained head is put into the target's unit, for which it needs a bias
    keeps: tuple[str, ...] = ()  # further keys of a task's record: "thresholds", "mean", "std"
    pipeline: str = "regression"  # the problem type for transformers' pipeline; this one means no softmax
    outputs: Callable[[Task], tuple[str, ...]] = lambda task: task.classes  # names of the head's outputs


_MACRO_F1 = Measure("macro_f1", hub=("f1", "Macro-F1"))
_ACCURACY = Measure("accuracy", share=True, hub=("accuracy", "Accuracy"))
_MAP = Measure("map", "mAP", share=True, hub=("mean_average_precision", "mAP"))
_R2 = Measure("r2", "R²", hub=("r_squared", "R squared"))
FACTS: dict[str, Facts] = {facts.name: facts for facts in (
    Facts(ONE, (_ACCURACY, _MACRO_F1, Measure("top5"), Measure("ece")), "always guessing the commonest class", least=2,
          pipeline="single_label_classification"),
    Facts(MANY, (_MAP, Measure("accuracy"), _MACRO_F1, Measure("micro_f1")), "guessing by how common labels are",
          least=1, noun="label", losses=("bce", "asymmetric"), several=True, alone=True, keeps=("thresholds",),
          pipeline="multi_label_classification"),
    Facts("regression", (_R2, Measure("mae", hub=("mae", "Mean error")), Measure("rmse")), "always guessing the mean",
          chance=True, scaled=True, keeps=("mean", "std"), outputs=lambda task: (task.name,)),
    Facts(ORDINAL, (Measure("kappa"), _ACCURACY, Measure("mae", hub=("mae", "Mean distance"))),
          "always guessing the same level", least=2, noun="level", chance=True,
          outputs=lambda task: tuple(f"above {level}" for level in task.classes[:-1])),
)}  # fmt: skip
LOSS_NAMES = tuple(dict.fromkeys(name for facts in FACTS.values() for name in facts.losses))  # of any kind
_SCORE = Measure("score", "mean score")  # of several tasks


@dataclass(frozen=True, slots=True)
class Task:
    """A task: what a model predicts of every image."""

    name: str  # unique among a model's tasks
    kind: str  # a key of `FACTS`
    classes: tuple[str, ...] = ()  # or labels, or levels from low to high; none for regression
    thresholds: tuple[float, ...] = ()  # multi-label: the probability from which each label is predicted, once chosen
    mean: float = 0.0  # regression: of the training targets
    std: float = 1.0  # the same
    plain: bool = False  # whether images are of one class each without a named task; no record mentions it

    @property
    def facts(self) -> Facts:
        """The facts of its kind."""
        return FACTS[self.kind]

    @property
    def outputs(self) -> int:
        """Outputs of the head."""
        return len(self.output_names)

    @property
    def columns(self) -> int:
        """Numbers of a target: 0 or 1 for each label, else one."""
        return len(self.classes) if self.facts.several else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output, as a list of classes has them."""
        return self.facts.outputs(self)

    def record(self) -> dict[str, Any]:
        """The task as plain values, without empty ones."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.facts.least:
            found["classes"] = list(self.classes)
        kept = {key: getattr(self, key) for key in self.facts.keeps}
        return found | {key: list(value) if isinstance(value, tuple) else value
                        for key, value in kept.items() if value != ()}  # fmt: skip

    @classmethod
    def from_record(cls, record: Any) -> Task:
        """Read a record; raises ValueError with the reason if it is not a task's."""
        if not isinstance(record, Mapping) or not isinstance(record.get("name"), str) or not record["name"]:
            raise ValueError("a task must be a mapping with a name")
        name, kind = record["name"], record.get("kind")
        this = f"task {name[:60]!r}"
        classes, thresholds = record.get("classes", []), record.get("thresholds", [])
        if not isinstance(kind, str) or kind not in FACTS:
            raise ValueError(f"the kind of {this} is none of {', '.join(FACTS)}")
        facts = FACTS[kind]
        if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
            raise ValueError(f"the classes of {this} must be a list of texts")
        if len(classes) < facts.least or (not facts.least and classes) or len(set(classes)) != len(classes):
            raise ValueError(f"{len(classes)} classes are not what the {kind} {this} can have")
        if not isinstance(thresholds, list) or not all(is_finite(value) and 0 <= value <= 1 for value in thresholds):
            raise ValueError(f"the thresholds of {this} must lie between 0 and 1")
        if thresholds and ("thresholds" not in facts.keeps or len(thresholds) != len(classes)):
            raise ValueError(f"{len(thresholds)} thresholds for {len(classes)} labels of {this}")
        mean, std = record.get("mean", 0.0), record.get("std", 1.0)
        if not is_finite(mean) or not is_finite(std) or std <= 0:
            raise ValueError(f"mean and deviation of {this} must be numbers, the second above 0")
        return cls(name, kind, tuple(classes), tuple(map(float, thresholds)), float(mean), float(std))


def one_class(classes: Iterable[Any]) -> tuple[Task]:
    """The plain task of images of one class each."""
    return (Task(UNASKED, ONE, tuple(map(str, classes)), plain=True),)


def is_plain(tasks: Sequence[Task]) -> bool:
    """Whether images are of one class each, without a named task."""
    return all(task.plain for task in tasks)


def alone(task: Task) -> Task:
    """A task as a model's only one: a single-label task becomes plain."""
    return one_class(task.classes)[0] if task.kind == ONE else task


def tasks_of(records: Any, classes: Iterable[Any]) -> tuple[Task, ...]:
    """The recorded tasks, or the plain one of these classes if there are none. Raises ValueError as `from_record`."""
    return tuple(map(Task.from_record, records or ())) or one_class(classes)


def task_records(tasks: Sequence[Task]) -> dict[str, Any]:
    """The key `tasks` of a record; nothing for a plain task."""
    return {} if is_plain(tasks) else {"tasks": [task.record() for task in tasks]}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as users type it: NAME=DATASET[:COLUMN[:KIND]]."""

    name: str
    dataset: str  # as for `--dataset`
    column: str | None = None  # of a table; or a column for each label, with commas
    kind: str | None = None  # None: guessed from the column
    levels: tuple[str, ...] = ()  # of an ordinal task, from low to high

    @classmethod
    def parse(cls, text: Any) -> TaskSpec:
        """Read what the user typed; raises ValueError with the reason if it is not a task."""
        form = "write NAME=DATASET[:COLUMN[:KIND]], such as age=people.csv:age:regression"
        name, _, source = text.partition("=") if isinstance(text, str) else ("", "", "")
        prefix = HUB_DATA if source.startswith(HUB_DATA) else ""
        dataset, *more = source.removeprefix(prefix).split(":")
        if not dataset or len(more) > 2 or not all(more):
            raise ValueError(f"{text!r} is not a task; {form}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(f"the name {name!r} must be of letters, digits, _, - and .; {form}")
        column, typed = (*more, None, None)[:2]
        levels = tuple(typed.split("<")) if typed and "<" in typed else ()
        if levels and (not all(levels) or len(set(levels)) != len(levels)):
            raise ValueError(f"the levels {typed!r} must be different texts with < between")
        kind = ORDINAL if levels else typed
        if kind is not None and kind not in FACTS:
            raise ValueError(f"the kind {typed!r} is none of {', '.join(FACTS)}, nor levels such as low<middle<high")
        return cls(name, prefix + dataset, column, kind, levels)

    @property
    def plain(self) -> bool:
        """Whether its images are of one class each, without columns."""
        return self.column is None and self.kind in (None, ONE)

    def __str__(self) -> str:
        """As it is typed."""
        kind = "<".join(self.levels) or self.kind
        return f"{self.name}={':'.join(part for part in (self.dataset, self.column, kind) if part)}"


@dataclass(frozen=True, slots=True)
class Span:
    """A task with its positions."""

    task: Task
    outputs: slice  # of the head's outputs
    columns: slice  # of an image's targets


def spans(tasks: Sequence[Task]) -> Iterator[Span]:
    """The tasks in order, each with its positions."""
    output = column = 0
    for task in tasks:
        yield Span(task, slice(output, output + task.outputs), slice(column, column + task.columns))
        output, column = output + task.outputs, column + task.columns


def output_names(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The names of all outputs, prefixed by the task's name if there are several tasks."""
    if len(tasks) == 1:
        return tasks[0].output_names
    return tuple(f"{task.name}: {name}" if task.classes else name for task in tasks for name in task.output_names)


def problem(tasks: Sequence[Task]) -> str:
    """A model's kind of problem: its only task's kind, or "multi-task"."""
    return tasks[0].kind if len(tasks) == 1 else SEVERAL


def pipeline(tasks: Sequence[Task]) -> str:
    """The problem type for transformers' pipeline: a sigmoid for labels, no softmax unless outputs are classes."""
    return tasks[0].facts.pipeline if len(tasks) == 1 else "regression"


def scored_alone(tasks: Sequence[Task]) -> bool:
    """Whether the epoch is chosen by one task's own scores, not by the mean score of tasks."""
    return len(tasks) == 1 and (tasks[0].plain or tasks[0].facts.alone)


def merits(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The scores on labelled images that can choose the epoch, the headline first."""
    return (tasks[0].facts.measures[0].key, "loss", "refinement") if scored_alone(tasks) else (_SCORE.key, "loss")


def task_faults(tasks: Any, weights: Any) -> list[str]:
    """All faults of a recipe's tasks and their weights."""
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
    """The kind of a result; single-label if the result does not name one."""
    return FACTS.get(str(result.get("problem")), FACTS[ONE])


def headline(result: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name and value of a result's headline measure."""
    measure = _SCORE if result.get("problem") == SEVERAL else facts_of(result).measures[0]
    return measure.name, result.get(measure.key)


def headlines() -> dict[str, Measure]:
    """The headline measures of all kinds, by key."""
    return {measure.key: measure for measure in (*(facts.measures[0] for facts in FACTS.values()), _SCORE)}


def is_share(name: str) -> bool:
    """Whether a headline measure of this name is written in per cent."""
    return any(measure.share for measure in headlines().values() if measure.name == name)


def written(name: str, value: float | None) -> str:
    """The value of a headline measure: `97.2%` for a share, else `0.720`."""
    return percent(value) if is_share(name) else number(value)


def measure_name(key: str) -> str:
    """The name of an epoch's measure."""
    return headlines().get(key, Measure(key)).name


def whole_numbers(texts: Iterable[str]) -> bool:
    """Whether all texts are whole numbers."""
    return all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in texts)


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: whole numbers by value, others by their characters."""
    names = sorted(set(labels))
    return tuple(sorted(names, key=lambda name: (int(name), name)) if whole_numbers(names) else names)


def number_of(text: str) -> float | None:
    """The finite number that a text stands for, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
