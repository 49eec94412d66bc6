"""Sentences about a record's numbers, for the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.base.text import percent, plural, rate
from zoo.base.untrusted import is_finite
from zoo.recipes import methods
from zoo.tasks import kinds, schema
from zoo.tasks.schema import Task

RARE = 10  # training images; with fewer, a label is hardly learned
Record = Mapping[str, Any]


def part(record: Record, *keys: str) -> dict[str, Any]:
    """A nested mapping of the record; empty if it is missing, as some are in an unfinished run."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def waited(record: Record) -> float | None:
    """The share of training spent waiting for images; None if not measured."""
    seconds = record.get("seconds") or {}
    if not is_finite(seconds.get("data_wait")) or not seconds.get("train"):
        return None
    return float(seconds["data_wait"] / seconds["train"])


def finished(record: Record) -> bool:
    """Whether the record has a final result."""
    return record.get("status") == "finished" and bool(part(record, "result"))


def trained_parameters(record: Record) -> tuple[int, int] | None:
    """The number of parameters trained up to the best epoch, and of all; None without a plan."""
    sizes: dict[str, int] = {}
    trained: set[str] = set()
    best = part(record, "best").get("phase")
    for phase in part(record, "plan").get("phases") or ():
        for group in phase.get("groups") or ():
            name = str(group.get("name"))  # a record from elsewhere may lack it
            sizes[name] = int(group.get("params") or 0)
            if not group.get("frozen"):
                trained.add(name)
        if phase.get("name") == best:
            break
    if not sizes:
        return None
    return sum(params for name, params in sizes.items() if name in trained), sum(sizes.values())


def confidence_gap(record: Record) -> float | None:
    """Mean confidence minus accuracy on the test images; above 0 if the model is overconfident."""
    entries = part(record, "result").get("calibration") or ()
    bins = [entry for entry in entries if all(entry.get(key) is not None for key in ("n", "confidence", "accuracy"))]
    total = sum(entry["n"] for entry in bins)
    gaps = sum(entry["n"] * (entry["confidence"] - entry["accuracy"]) for entry in bins)
    return float(gaps / total) if total else None


def tasks_of(record: Record) -> tuple[Task, ...]:
    """The tasks of a run."""
    dataset = part(record, "dataset")
    return schema.tasks_of(dataset.get("tasks"), dataset.get("classes") or ())


def guess(result: Record) -> str:
    """The name of the guessing baseline."""
    return schema.facts_of(result).guess


def baseline(result: Record) -> float | None:
    """The main measure of the guessing baseline."""
    value: Any = 0.0 if schema.facts_of(result).chance else result.get("baseline")
    return float(value) if is_finite(value) else None


def guessed(result: Record) -> str:
    """The main measure of the guessing baseline, formatted."""
    return "0" if schema.facts_of(result).chance else percent(baseline(result))


def purpose(record: Record) -> str:
    """What the model is for, in a phrase that follows "a backbone, adapted"."""
    tasks = tasks_of(record)
    if len(tasks) > 1:
        return f"for {plural(len(tasks), 'task')}: {', '.join(task.name for task in tasks)}"
    (task,) = tasks
    classes = plural(len(task.classes), task.facts.noun, "classes" if task.facts.noun == "class" else "")
    return kinds.of(task).purpose.format(classes=classes, name=task.name)


def blind(record: Record) -> str:
    """The validator that chose the epoch on unlabelled target images; empty if labelled images chose it."""
    by = str(part(record, "resolved").get("select_by") or "")
    return by if by in methods.VALIDATORS and part(record, "target") else ""


def unlabelled_role(record: Record) -> str:
    """What the unlabelled images were used for."""
    target, recipe = part(record, "target"), part(record, "recipe")
    align, semi = (target.get(name) or recipe.get(name) or "none" for name in ("align", "semi"))
    if align in methods.ALIGNMENT or semi != "none":
        return "trained on without labels"
    return "used for norm statistics" if align == "adabn" else "looked at without labels"


def caveats(record: Record) -> list[str]:
    """The limits of the result, as sentences."""
    result, dataset, tasks = part(record, "result"), part(record, "dataset"), tasks_of(record)
    limits: list[str] = []
    by_class = len(tasks) == 1 and schema.alone(tasks[0]).plain
    bounds, chance, n = result.get("interval"), baseline(result), result.get("n")
    if isinstance(bounds, Sequence) and len(bounds) == 2 and all(map(is_finite, bounds)):
        if chance is not None and bounds[0] <= chance:
            limits.append(f"Not measurably better than {guess(result)}, which scores {guessed(result)}.")
        if bounds[1] - bounds[0] > 0.1:
            limits.append(
                f"Measured on only {plural(int(n or 0), 'image')}: "
                f"the 95% interval is {100 * (bounds[1] - bounds[0]):.0f} points wide."
            )
    if result and result.get("split") and result["split"] == result.get("selected_on"):
        limits.append("The result is measured on the images that chose the epoch, so the accuracy is optimistic.")
    labels = result.get("labels") or ()
    empty = [entry["name"] for entry in result.get("classes") or labels if entry.get("n") == 0]
    if empty:
        limits.append(f"No measured image has one of these {'labels' if labels else 'classes'}: {_some(empty)}.")
    sizes = [int(value) for value in part(dataset, "counts", "fit").get("per_class") or ()]
    if sizes and by_class and max(sizes) > 10 * max(1, min(sizes)):
        limits.append(
            f"Training classes are imbalanced: the smallest has {plural(min(sizes), 'image')}, "
            f"the largest {max(sizes):,}. Accuracy favours the large ones; macro-F1 does not."
        )
    rare = [name for name, size in zip(dataset.get("classes") or (), sizes, strict=False) if size < RARE]
    if labels and rare:
        limits.append(f"Fewer than {RARE} training images have these labels: {_some(rare)}.")
    gap = confidence_gap(record)
    if gap is not None and abs(gap) > 0.1:
        kind = "high" if gap > 0 else "low"
        limits.append(f"Probabilities are on average {abs(gap) * 100:.0f} points too {kind}: see the calibration.")
    if dataset.get("bad"):
        limits.append(f"{plural(len(dataset['bad']), 'unreadable image')} left out.")
    return limits


def _some(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def averages(record: Record) -> list[str]:
    """How the weights were averaged, as sentences; empty if they are those of one epoch."""
    lines = []
    soup, wise = part(record, "soup"), part(record, "wise")
    rows = soup.get("candidates") or []
    if rows:
        of = "runs" if "run" in rows[0] else "epochs"
        if soup.get("kept") == 1:
            lines.append(f"Soup: the best of {len(rows)} {of} alone, because no average was better.")
        else:
            lines.append(f"Soup: the average of {soup.get('kept')} of {len(rows)} {of}, added while it got no worse.")
    if wise.get("candidates"):
        how = "the best share tried" if wise.get("asked") == "sweep" else "as requested"
        lines.append(
            f"WiSE-FT: {rate(wise.get('alpha'))} of the fine-tuned weights, and the rest of the start "
            f"({wise.get('start')}), {how}."
        )
    return lines


def weight_meaning(record: Record) -> str:
    """The meaning of the members' weights in a stack, as a sentence; empty if it is no stack."""
    choice = part(record, "stack").get("choice")
    return {
        "mean": "All members have equal weight.",
        "weighted": "A member's weight is its share of the mixture of probabilities.",
        "gated": "A member's weight is its share of the mixture, which depends on the image; the mean is shown.",
        "logistic": "A member's coefficient is the mean weight of its log-probability of a class in the class's score.",
    }.get(str(choice), "")
