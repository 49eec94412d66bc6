"""`report.html`: one file that shows a run to a person, without anything from outside."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from zoo.base import text
from zoo.base.files import write_atomic
from zoo.base.untrusted import is_finite
from zoo.errors import printable
from zoo.recipes import plan_table
from zoo.recipes.recipe import Recipe
from zoo.runs.report import sentences, tables, task_sections, unlabelled_section
from zoo.runs.report.sentences import part
from zoo.runs.run_folder import Run
from zoo.tasks.schema import headline, is_share, problem

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

MAX_CELLS = 20  # classes up to which the confusion matrix is written out, number by number
MAX_PICTURES = 24
THUMBNAIL = 176  # pixels, longer side
_SHORT = 25  # rows of a long table before "show all"


def write_report(run: Run, pictures: Mapping[str, Image], record: dict[str, Any] | None = None) -> Path:
    """Write the run's `report.html`.

    Args:
        run: The run; it may be unfinished, in which case the page says so and shows no result.
        pictures: Pictures of the most confident mistakes by sample id; missing ones leave an empty frame.
        record: What run.json is about to say, where that is written last; None: what it says.

    Returns:
        The path of the page: one self-contained file that loads nothing from outside and works without a network.

    Raises:
        RunError: The run has no readable record.
        ZooError: The page cannot be written.
    """
    record = record or run.record
    write_atomic(run.report, render("report.html.jinja", _context(run, record, pictures)))
    return run.report


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from a template of this package, which finds our script and its hash beside the context."""
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "script.js")[0]
    return environment.get_template(template).render(
        **context,
        script=Markup(script),  # our own file; its hash is the only script that the page's policy allows
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, PackageLoader  # not before there is a page to write

    environment = Environment(
        loader=PackageLoader("zoo.runs.report"),
        autoescape=True,
        undefined=ChainableUndefined,  # a run that stopped early lacks parts of its record
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text.FORMATS)
    return environment


def _shown(value: Any) -> Any:
    """A value as the page may hold it: HTML has no control characters, and escaping leaves them as they are."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _context(run: Run, record: dict[str, Any], pictures: Mapping[str, Image]) -> dict[str, Any]:
    finished = sentences.finished(record)
    if not finished:
        # A result beside another status is left over or premature: nothing on the page may be taken for one.
        record = {**record, "result": None}
    history = tables.read_history(run.metrics_path)
    path = _near(run.path)
    return {
        "run": {
            "name": str(record.get("name") or run.name),
            "path": shlex.quote(path),
            "literal": repr(path),
            "local_dir": repr(f"local-dir:{path}/members/0" if record.get("kind") == "stack" else f"local-dir:{path}"),
            "created": _day(record),
        },
        "record": record,
        "finished": finished,
        "status": record.get("status") or "unknown",
        "error": _text(record["error"]) if record.get("error") else "",
        "backbone": part(record, "backbone"),
        "short_backbone": str(part(record, "backbone").get("name") or "backbone").rpartition("/")[2],
        "weights": part(record, "backbone", "weights"),
        "dataset": part(record, "dataset"),
        "result": part(record, "result"),
        **_score(record),
        "label_rows": tables.label_rows(record),
        "task_rows": task_sections.task_rows(record),
        **_task_series(record, history),
        "best": part(record, "best"),
        "stack": part(record, "stack"),
        "weight_meaning": sentences.weight_meaning(record),
        "soup": part(record, "soup") or part(record, "stack", "soup"),
        "wise": part(record, "wise"),
        "averages": sentences.averages(record),
        "seconds": part(record, "seconds"),
        "waited": sentences.waited(record),
        "environment": {**part(record, "environment"), **_resolved(record)},
        "data_config": part(record, "data_config"),
        "trained": sentences.trained_parameters(record),
        "caveats": sentences.caveats(record),
        "notes": _notes(record),
        "gap": sentences.confidence_gap(record),
        "plan": _plan(record),
        "target": part(record, "target"),
        "unlabelled": part(record, "unlabelled"),
        "sure": unlabelled_section.sure(history),
        "blind": sentences.blind(record),
        "beside_role": sentences.beside_role(record),
        **unlabelled_section.candidates(record),
        "loss_parts": unlabelled_section.loss_parts(history),
        "recipe": _recipe(record),
        "classes": tables.class_names(record),
        "class_rows": tables.class_rows(record),
        "confusions": tables.confusions(record, 12),
        "matrix": _matrix(record),
        "mistakes": _mistakes(record, pictures),
        "plots": _plots(record, history),
        "short": _SHORT,
        "dash": text.DASH,
    }


def _score(record: dict[str, Any]) -> dict[str, Any]:
    """The number that the run is known by, what it is called, and what guessing would reach."""
    kind, best = problem(sentences.tasks_of(record)), part(record, "best")
    name, value = headline({**part(record, "result"), "problem": kind})
    return {
        "score": value if is_finite(value) else None,
        "score_name": name,
        "purpose": sentences.purpose(record),
        "in_percent": is_share(name),
        "kind": kind,
        "curve_name": name.capitalize() if name.islower() else name,
        "best_score": best.get("score", headline({**best, "problem": kind})[1]),
        "guess": sentences.guess(part(record, "result")),
        "guessed": sentences.guessed(part(record, "result")),
        "baseline": sentences.baseline(part(record, "result")),
    }


def _plots(record: dict[str, Any], history: tables.History) -> dict[str, Markup]:
    """The plots that there is something to draw for, by name."""
    from zoo.runs.report import (
        domain_plots,
        plots,  # matplotlib takes a moment to import; reading a record should not
    )

    matrix = tables.confusion_matrix(record)
    finder = part(record, "lr_finder")
    drawn: dict[str, str] = {}
    if len(history.steps) > 1 or history.epochs:
        drawn["loss"] = plots.loss_curve(history)
    if any(value is not None for _, value in map(tables.epoch_score, history.epochs)):
        drawn["accuracy"] = plots.accuracy_curve(history, part(record, "best"))
    if any(len(points) > 1 for points in history.rates.values()):
        drawn["rates"] = plots.rate_curve(history, _group_names(record, history))
    if finder.get("lr"):
        drawn["finder"] = plots.rate_test(finder)
    for name, points in part(record, "target", "domains").items():
        if isinstance(points, dict):
            drawn[name] = domain_plots.domain_plot(points, name)
    losses = unlabelled_section.loss_parts(history)
    if losses:
        drawn["objective"] = domain_plots.parts_plot(history, losses, "nats", "objective")
    if "omega" in history.parts:
        drawn["omega"] = domain_plots.parts_plot(history, ["omega"], "omega", "omega")
    if unlabelled_section.sure(history) is not None:
        drawn["sure"] = domain_plots.parts_plot(history, ["sure"], "share", "sure")
    losses, weights = task_sections.series(record, history)
    for name, label, parts in (("task_losses", "nats", losses), ("task_weights", "weight", weights)):
        if parts:
            colours = plots.COLOURS if len(parts) <= len(plots.COLOURS) else plots.shades(len(parts))
            drawn[name] = domain_plots.parts_plot(history, parts, label, name, colours)
    calibration = part(record, "result").get("calibration")
    if calibration:
        drawn["calibration"] = plots.reliability(calibration)
    stack = part(record, "stack")
    if len(stack.get("weights") or ()) > 1:
        drawn["weights"] = plots.member_weights([member["name"] for member in stack["members"]], stack["weights"])
    if matrix is not None and len(matrix) > MAX_CELLS:
        drawn["confusion"] = plots.confusion_map(matrix)
    return {name: Markup(svg) for name, svg in drawn.items()}  # texts were escaped by ElementTree


def _task_series(record: dict[str, Any], history: tables.History) -> dict[str, Any]:
    """The tasks whose losses are drawn, and the colour of each."""
    names, _ = task_sections.series(record, history)
    return {"task_losses": names, "shades": task_sections.colours(len(names))}


def _group_names(record: dict[str, Any], history: tables.History) -> list[str]:
    """The layer groups in forward order: the plan's, else as logged."""
    for phase in part(record, "plan").get("phases") or ():
        return [str(group["name"]) for group in phase.get("groups") or ()]
    return list(history.rates)


def _plan(record: dict[str, Any]) -> dict[str, Any]:
    """The plan with a colour for every group: the same one in the plan and in the curves."""
    plan = part(record, "plan")
    phases = []
    for phase in plan.get("phases") or ():
        groups = list(phase.get("groups") or ())
        last = max(1, len(groups) - 1)
        shades = [
            f"color-mix(in oklab, var(--head) {round(100 * place / last)}%, var(--early))"
            for place in range(len(groups))
        ]
        rows = plan_table.group_rows(phase)
        coloured = [
            {**group, "colour": colour, "rate": row.rate}
            for group, colour, row in zip(groups, shades, rows, strict=False)
        ]
        phases.append({**phase, "beside": plan_table.unlabelled_line(phase), "groups": coloured, "rows": rows})
    return {**plan, "phases": phases}


def _recipe(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every choice with its default, what it was resolved to, and whether the person changed it."""
    chosen, resolved, defaults = part(record, "recipe"), part(record, "resolved"), Recipe().record()
    fields = Recipe.__dataclass_fields__
    return [
        {
            "name": name,
            "value": _text(value),
            "default": _text(defaults[name]) if name in defaults else text.DASH,
            "changed": name not in defaults or value != defaults[name],
            "became": _text(resolved[name]) if name in resolved and resolved[name] != value else "",
            "help": str(fields[name].metadata.get("help", "")) if name in fields else "",
        }
        for name, value in chosen.items()
    ]


def _resolved(record: dict[str, Any]) -> dict[str, Any]:
    """What was decided for the machine: precision, threads, …; the recipe's own fields are shown with the recipe."""
    machine = ("precision", "threads", "workers", "processes", "compile", "cache")
    resolved = part(record, "resolved")
    return {name: resolved[name] for name in machine if resolved.get(name) is not None}


def _matrix(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The confusion matrix row by row with a shade for each cell, when there are few enough classes to read it."""
    matrix, names = tables.confusion_matrix(record), tables.class_names(record)
    if matrix is None or len(matrix) > MAX_CELLS:
        return None
    rows = []
    for index, line in enumerate(matrix.tolist()):
        total = max(1, sum(line))
        cells = [
            {"n": n, "share": n / total, "shade": round(8 + 72 * n / total) if n else 0, "right": place == index}
            for place, n in enumerate(line)
        ]
        rows.append({"name": names[index], "cells": cells})
    return rows


def _mistakes(record: dict[str, Any], pictures: Mapping[str, Image]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(entry.get("id")),
            "label": str(entry.get("label")),
            "predicted": str(entry.get("predicted")),
            "probability": entry.get("probability"),
            "picture": _thumbnail(pictures[entry["id"]]) if entry.get("id") in pictures else None,
        }
        for entry in (part(record, "result").get("mistakes") or ())[:MAX_PICTURES]
    ]


def _thumbnail(picture: Image) -> dict[str, Any]:
    """A small JPEG as a data URI; pictures smaller than the frame keep their pixels and are scaled by the browser."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "pixelated": max(small.size) <= THUMBNAIL // 2}


def _notes(record: dict[str, Any]) -> list[str]:
    """Notes of the data and the plan, each once."""
    notes = [*(part(record, "dataset").get("notes") or ()), *(part(record, "plan").get("notes") or ())]
    return list(dict.fromkeys(str(note) for note in notes))


def _near(path: Path) -> str:
    """The run's path as a person would type it here: relative when it lies below this folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _day(record: dict[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(str(record.get("created")))
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def _text(value: Any) -> str:
    """A recipe's or record's value as a person would write it."""
    if value is None:
        return text.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return text.rate(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or text.DASH
    if isinstance(value, list | tuple):
        return "; ".join(_text(item) for item in value) or text.DASH
    return str(value)
