"""What a record's numbers mean, in sentences. Shared by the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.base.text import percent, plural, rate
from zoo.base.untrusted import is_finite
from zoo.recipes import methods
from zoo.tasks import kinds, schema
from zoo.tasks.schema import Task

RARE = 10  # training images below which a label is hardly learnt
Record = Mapping[str, Any]


def part(record: Record, *keys: str) -> dict[str, Any]:
    """A nested mapping of the record, empty where it is absent: a run that is not finished lacks several."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def waited(record: Mapping[str, Any]) -> float | None:
    """The share of training in which the next images were not there yet; None where nobody measured it."""
    seconds = record.get("seconds") or {}
    if not is_finite(seconds.get("data_wait")) or not seconds.get("train"):
        return None
    return float(seconds["data_wait"] / seconds["train"])


def finished(record: Record) -> bool:
    """Whether the record may be reported as a result."""
    return record.get("status") == "finished" and bool(part(record, "result"))


def trained_parameters(record: Record) -> tuple[int, int] | None:
    """Parameters that trained in a phase up to the best epoch, and all of them; None without a plan."""
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
    """Mean confidence minus accuracy over the reported images; above 0: the model is too sure of itself."""
    entries = part(record, "result").get("calibration") or ()
    bins = [entry for entry in entries if all(entry.get(key) is not None for key in ("n", "confidence", "accuracy"))]
    total = sum(entry["n"] for entry in bins)
    if not total:
        return None
    return float(sum(entry["n"] * (entry["confidence"] - entry["accuracy"]) for entry in bins) / total)


def tasks_of(record: Record) -> tuple[Task, ...]:
    """What the run's images answer."""
    dataset = part(record, "dataset")
    return schema.tasks_of(dataset.get("tasks"), dataset.get("classes") or ())


def guess(result: Record) -> str:
    """What the baseline is that a result stands beside."""
    return schema.facts_of(result).guess


def baseline(result: Record) -> float | None:
    """What guessing reaches of the measure that a result is known by."""
    found: Any = 0.0 if schema.facts_of(result).chance else result.get("baseline")
    return float(found) if is_finite(found) else None


def guessed(result: Record) -> str:
    """The same, as it is written."""
    return "0" if schema.facts_of(result).chance else percent(baseline(result))


def purpose(record: Record) -> str:
    """What the model does with an image, in a phrase that follows "a backbone, adapted"."""
    found = tasks_of(record)
    if len(found) > 1:
        return f"to answer {plural(len(found), 'question')} about each image: {', '.join(task.name for task in found)}"
    (task,) = found
    classes = plural(len(task.classes), task.facts.noun, "classes" if task.facts.noun == "class" else "")
    return kinds.of(task).purpose.format(classes=classes, name=task.name)


def blind(record: Record) -> str:
    """What of target images chose the epoch, without labels; empty where labelled images did."""
    by = str(part(record, "resolved").get("select_by") or "")
    return by if by in methods.VALIDATORS and part(record, "target") else ""


def beside_role(record: Record) -> str:
    """What the images without labels were used for."""
    target, recipe = part(record, "target"), part(record, "recipe")
    align, semi = (target.get(name) or recipe.get(name) or "none" for name in ("align", "semi"))
    if align in methods.ALIGNMENT or semi != "none":
        return "trained on without labels"
    return "whose norm statistics it has" if align == "adabn" else "looked at without labels"


def caveats(record: Record) -> list[str]:
    """What limits the result, read off its own numbers, in whole sentences."""
    result, dataset = part(record, "result"), part(record, "dataset")
    found: list[str] = []
    tasks = tasks_of(record)
    by_class = len(tasks) == 1 and schema.alone(tasks[0]).plain
    bounds, chance, n = result.get("interval"), baseline(result), result.get("n")
    if isinstance(bounds, Sequence) and len(bounds) == 2 and all(is_finite(bound) for bound in bounds):
        if chance is not None and bounds[0] <= chance:
            reached = "is right for" if by_class else "reaches"
            found.append(f"Not measurably better than {guess(result)}, which {reached} {guessed(result)}.")
        if bounds[1] - bounds[0] > 0.1:
            found.append(
                f"Measured on {plural(int(n or 0), 'image')} only: "
                f"the 95% interval is {100 * (bounds[1] - bounds[0]):.0f} points wide."
            )
    if result and result.get("split") and result["split"] == result.get("selected_on"):
        found.append("The same images chose the best epoch and are reported on, so the accuracy is optimistic.")
    labels = result.get("labels") or ()
    empty = [entry["name"] for entry in result.get("classes") or labels if entry.get("n") == 0]
    if empty:
        more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
        kind = "labels" if labels else "classes"
        found.append(f"No image of these {kind} was measured: {', '.join(map(str, empty[:3]))}{more}.")
    sizes = [int(value) for value in part(dataset, "counts", "fit").get("per_class") or ()]
    if sizes and by_class and max(sizes) > 10 * max(1, min(sizes)):
        found.append(
            f"Training classes are unequal: the smallest has {plural(min(sizes), 'image')}, "
            f"the largest {max(sizes):,}. Accuracy leans towards the large ones; macro-F1 does not."
        )
    rare = [name for name, size in zip(dataset.get("classes") or (), sizes, strict=False) if size < RARE]
    if labels and rare:
        more = f" and {len(rare) - 3:,} more" if len(rare) > 3 else ""
        found.append(f"Fewer than {RARE} training images have these labels: {', '.join(map(str, rare[:3]))}{more}.")
    gap = confidence_gap(record)
    if gap is not None and abs(gap) > 0.1:
        kind = "higher than they should be" if gap > 0 else "lower than they should be"
        found.append(f"Probabilities are {abs(gap) * 100:.0f} points {kind} on average: see the calibration.")
    if dataset.get("bad"):
        found.append(f"{plural(len(dataset['bad']), 'unreadable image')} left out.")
    return found


def averages(record: Record) -> list[str]:
    """What of the weights is an average, in whole sentences; none where they are one epoch's."""
    found = []
    soup, wise = part(record, "soup"), part(record, "wise")
    rows = soup.get("candidates") or []
    if rows:
        of = "runs" if "run" in rows[0] else "epochs"
        if soup.get("kept") == 1:
            found.append(f"Soup: the best of {len(rows)} {of} alone, for no average was better.")
        else:
            found.append(f"Soup: the average of {soup.get('kept')} of {len(rows)} {of}, added while it got no worse.")
    if wise.get("candidates"):
        how = "the best of the shares tried" if wise.get("asked") == "sweep" else "as asked for"
        found.append(
            f"WiSE-FT: {rate(wise.get('alpha'))} of the fine-tuned end and the rest of the start "
            f"({wise.get('start')}), {how}."
        )
    return found


def weight_meaning(record: Record) -> str:
    """What the members' weights in a stack are, in a sentence; empty where there are none."""
    choice = part(record, "stack").get("choice")
    return {
        "mean": "Every member counts alike.",
        "weighted": "A member's weight is the share of its probabilities in the mixture.",
        "gated": "A member's weight is the share of its probabilities, which depends on the image: the mean is shown.",
        "logistic": "A member's coefficient is what its own logarithm of a class adds to that class, on average.",
    }.get(str(choice), "")
