"""Several tasks on the page: what each is measured to be, and how their losses went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.runs.report import sentences, tables
from zoo.runs.report.sentences import part
from zoo.runs.report.tables import History
from zoo.tasks.schema import Span, headline, spans, written


def task_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each task with its result, and tables as of a run that answers it alone; empty where there is one or none."""
    tasks = sentences.tasks_of(record)
    if len(tasks) < 2:
        return []
    rows = []
    for span in spans(tasks):
        task = span.task
        result = part(record, "result", "tasks", task.name)
        alone = alone_record(record, span)
        name, value = headline({**result, "problem": task.kind})
        rows.append({
            "name": task.name,
            "kind": task.kind,
            "noun": task.facts.noun.capitalize(),
            "measure": name,
            "worth": written(name, value),
            "result": result,
            "guess": sentences.guess(result),
            "guessed": sentences.guessed(result),
            "class_rows": tables.class_rows(alone),
            "confusions": tables.confusions(alone, 5),
            "label_rows": tables.label_rows(alone),
        })  # fmt: skip
    return rows


def alone_record(record: Mapping[str, Any], span: Span) -> dict[str, Any]:
    """The record as if one task were all that was asked, of its own data set where there are several.

    Images that say nothing of the task do not count.
    """
    task, dataset = span.task, part(record, "dataset")
    own: dict[str, Any] = next(
        (one for one in dataset.pop("sets", None) or () if task.name in (one.get("tasks") or ())), {}
    )
    counts = {
        role: {"n": (held.get("answers") or {}).get(task.name, held.get("n")),
               "per_class": (held.get("per_class") or [])[span.outputs]}
        for role, held in part(dataset, "counts").items()
    }  # fmt: skip
    dataset |= {**own, "classes": list(task.output_names), "counts": counts, "tasks": [task.record()]}
    if own:  # what is noted of one of several data sets begins with its name
        prefix = f"{own.get('name')}: "
        notes = [str(note) for note in dataset.get("notes") or ()]
        dataset["notes"] = [note.removeprefix(prefix) for note in notes if note.startswith(prefix)]
    result = part(record, "result", "tasks", task.name)
    if result:
        said = part(record, "result")
        result["split"] = own.get("reported_on", said.get("split"))
        result["selected_on"] = own.get("selected_on", said.get("selected_on"))
    return {**record, "dataset": dataset, "result": result or None}


def colours(count: int) -> list[str]:
    """So many CSS colours for lines: those that are easily told apart, or where they do not suffice, shades."""
    few = ["var(--accent)", "var(--warm)", "var(--good)", "var(--ink)"]
    last = max(1, count - 1)
    mixed = [f"color-mix(in oklab, var(--head) {round(100 * n / last)}%, var(--early))" for n in range(count)]
    return few[:count] if count <= len(few) else mixed


def series(record: Mapping[str, Any], history: History) -> tuple[list[str], list[str]]:
    """The names of the tasks' losses, and of their learned weights, among what the objective logged."""
    tasks = [str(task.get("name")) for task in part(record, "dataset").get("tasks") or ()]
    losses = [name for name in tasks if len(history.parts.get(name, ())) > 1]
    weights = [f"weight of {name}" for name in losses if len(history.parts.get(f"weight of {name}", ())) > 1]
    return losses, weights
