"""Several tasks in the report: their results and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.runs.report import sentences, tables
from zoo.runs.report.sentences import part
from zoo.runs.report.tables import History
from zoo.tasks.schema import Span, headline, spans, written


def task_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each task with its result and tables, as of a run of that task alone; empty for fewer than two tasks."""
    tasks = sentences.tasks_of(record)
    rows: list[dict[str, Any]] = []
    for span in spans(tasks) if len(tasks) > 1 else ():
        task, alone = span.task, alone_record(record, span)
        result = part(record, "result", "tasks", task.name)
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
    """The record as if there were only this task, with its own data set and without images that lack its target."""
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
    if own:  # a note about one of several data sets begins with its name
        prefix = f"{own.get('name')}: "
        notes = [str(note) for note in dataset.get("notes") or ()]
        dataset["notes"] = [note.removeprefix(prefix) for note in notes if note.startswith(prefix)]
    result = part(record, "result", "tasks", task.name)
    if result:
        whole = part(record, "result")
        result["split"] = own.get("reported_on", whole.get("split"))
        result["selected_on"] = own.get("selected_on", whole.get("selected_on"))
    return {**record, "dataset": dataset, "result": result or None}


def shades(count: int) -> list[str]:
    """CSS colours from the input's to the head's, as many as `count`."""
    return [f"color-mix(in oklab, var(--head) {round(100 * place / max(1, count - 1))}%, var(--early))"
            for place in range(count)]  # fmt: skip


def colours(count: int) -> list[str]:
    """CSS colours for `count` lines: distinct ones, or shades if they do not suffice."""
    distinct = ["var(--accent)", "var(--warm)", "var(--good)", "var(--ink)"]
    return distinct[:count] if count <= len(distinct) else shades(count)


def series(record: Mapping[str, Any], history: History) -> tuple[list[str], list[str]]:
    """The logged names of the tasks' losses, and of their learned weights."""
    tasks = [str(task.get("name")) for task in part(record, "dataset").get("tasks") or ()]
    losses = [name for name in tasks if len(history.parts.get(name, ())) > 1]
    weights = [f"weight of {name}" for name in losses if len(history.parts.get(f"weight of {name}", ())) > 1]
    return losses, weights
