"""`report.html`: a self-contained page about a run."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from functools import cache
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

MAX_CELLS = 20  # most classes for a confusion matrix in numbers
MAX_PICTURES = 24
THUMBNAIL = 176  # pixels, longer side
_SHORT = 25  # rows of a long table before "show all"


def write_report(run: Run, pictures: Mapping[str, Image], record: dict[str, Any] | None = None) -> Path:
    """Write a run's `report.html`, finished or not; returns its path.

    `pictures` are of the most confident mistakes, by sample id. `record` is given if run.json is not written yet.
    """
    record = record or run.record
    write_atomic(run.report, render("report.html.jinja", _context(run, record, pictures)))
    return run.report


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from a template of this package, with the context, our script and its hash."""
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "script.js")[0]
    return environment.get_template(template).render(
        **context,
        script=Markup(script),  # our own file, and the only script that the page's policy allows
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, PackageLoader  # imported only to write a page

    environment = Environment(
        loader=PackageLoader("zoo.runs.report"),
        autoescape=True,
        undefined=ChainableUndefined,  # the record of an unfinished run lacks parts
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text.FORMATS)
    return environment


def _shown(value: Any) -> Any:
    """A value without control characters, which HTML does not allow and escaping does not remove."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _context(run: Run, record: dict[str, Any], pictures: Mapping[str, Image]) -> dict[str, Any]:
    finished = sentences.finished(record)
    if not finished:  # a result of an unfinished run is left over or premature, and must not be shown
        record = {**record, "result": None}
    history = tables.read_history(run.metrics_path)
    relative = os.path.relpath(run.path)
    path = str(run.path) if relative.startswith("..") else relative  # as a user would type it
    parts = ("backbone", "dataset", "result", "best", "stack", "wise", "seconds", "data_config", "target", "unlabelled")
    losses, _ = task_sections.series(record, history)
    return {
        "run": {
            "name": str(record.get("name") or run.name),
            "path": shlex.quote(path),
            "literal": repr(path),
            "local_dir": repr(f"local-dir:{path}/members/0" if record.get("kind") == "stack" else f"local-dir:{path}"),
            "created": _day(record),
        },
        "record": record,
        **{name: part(record, name) for name in parts},
        "finished": finished,
        "status": record.get("status") or "unknown",
        "error": _text(record["error"]) if record.get("error") else "",
        "short_backbone": str(part(record, "backbone").get("name") or "backbone").rpartition("/")[2],
        "weights": part(record, "backbone", "weights"),
        **_score(record),
        "label_rows": tables.label_rows(record),
        "task_rows": task_sections.task_rows(record),
        "task_losses": losses,
        "shades": task_sections.colours(len(losses)),
        "weight_meaning": sentences.weight_meaning(record),
        "soup": part(record, "soup") or part(record, "stack", "soup"),
        "averages": sentences.averages(record),
        "waited": sentences.waited(record),
        "environment": {**part(record, "environment"), **_resolved(record)},
        "trained": sentences.trained_parameters(record),
        "caveats": sentences.caveats(record),
        "notes": _notes(record),
        "gap": sentences.confidence_gap(record),
        "plan": _plan(record),
        "sure": unlabelled_section.sure(history),
        "blind": sentences.blind(record),
        "unlabelled_role": sentences.unlabelled_role(record),
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
    """The main measure, its name, and its value for guessing."""
    kind, best, result = problem(sentences.tasks_of(record)), part(record, "best"), part(record, "result")
    name, value = headline({**result, "problem": kind})
    return {
        "score": value if is_finite(value) else None,
        "score_name": name,
        "purpose": sentences.purpose(record),
        "in_percent": is_share(name),
        "kind": kind,
        "curve_name": name.capitalize() if name.islower() else name,
        "best_score": best.get("score", headline({**best, "problem": kind})[1]),
        "guess": sentences.guess(result),
        "guessed": sentences.guessed(result),
        "baseline": sentences.baseline(result),
    }


def _plots(record: dict[str, Any], history: tables.History) -> dict[str, Markup]:
    """The plots of this run, by name."""
    from zoo.runs.report import plots  # not at the top: matplotlib is slow to import

    matrix = tables.confusion_matrix(record)
    finder = part(record, "lr_finder")
    drawn: dict[str, str] = {}
    if len(history.steps) > 1 or history.epochs:
        drawn["loss"] = plots.loss_curve(history)
    if any(value is not None for _, value in map(tables.epoch_score, history.epochs)):
        drawn["accuracy"] = plots.accuracy_curve(history, part(record, "best"))
    if any(len(points) > 1 for points in history.rates.values()):
        phases = part(record, "plan").get("phases")  # the groups in forward order, as logged if there is no plan
        groups = [str(group["name"]) for group in phases[0].get("groups") or ()] if phases else list(history.rates)
        drawn["rates"] = plots.rate_curve(history, groups)
    if finder.get("lr"):
        drawn["finder"] = plots.rate_test(finder)
    for name, points in part(record, "target", "domains").items():
        if isinstance(points, dict):
            drawn[name] = plots.domain_plot(points, name)
    sure = ["sure"] if unlabelled_section.sure(history) is not None else []
    losses, weights = task_sections.series(record, history)
    for name, label, parts in (
        ("objective", "nats", unlabelled_section.loss_parts(history)),
        ("omega", "omega", ["omega"] if "omega" in history.parts else []),
        ("sure", "share", sure),
        ("task_losses", "nats", losses),
        ("task_weights", "weight", weights),
    ):
        if parts:
            many = name.startswith("task_") and len(parts) > len(plots.COLOURS)
            colours = plots.shades(len(parts)) if many else plots.COLOURS
            drawn[name] = plots.parts_plot(history, parts, label, name, colours)
    calibration = part(record, "result").get("calibration")
    if calibration:
        drawn["calibration"] = plots.reliability(calibration)
    stack = part(record, "stack")
    if len(stack.get("weights") or ()) > 1:
        drawn["weights"] = plots.member_weights([member["name"] for member in stack["members"]], stack["weights"])
    if matrix is not None and len(matrix) > MAX_CELLS:
        drawn["confusion"] = plots.confusion_map(matrix)
    return {name: Markup(svg) for name, svg in drawn.items()}  # texts were escaped by ElementTree


def _plan(record: dict[str, Any]) -> dict[str, Any]:
    """The plan with a colour for every group, the same as in the curves."""
    plan = part(record, "plan")
    phases = []
    for phase in plan.get("phases") or ():
        groups, rows = list(phase.get("groups") or ()), plan_table.group_rows(phase)
        coloured = [
            {**group, "colour": colour, "rate": row.rate}
            for group, colour, row in zip(groups, task_sections.shades(len(groups)), rows, strict=False)
        ]
        phases.append({**phase, "unlabelled_line": plan_table.unlabelled_line(phase), "groups": coloured, "rows": rows})
    return {**plan, "phases": phases}


def _recipe(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every choice with its default, its resolved value, and whether the user changed it."""
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
    """The choices made for the machine: precision, threads, …; the others are shown with the recipe."""
    machine = ("precision", "threads", "workers", "processes", "compile", "cache")
    resolved = part(record, "resolved")
    return {name: resolved[name] for name in machine if resolved.get(name) is not None}


def _matrix(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of the confusion matrix, with a shade for each cell; None for more than `MAX_CELLS` classes."""
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
            **{key: str(entry.get(key)) for key in ("id", "label", "predicted")},
            "probability": entry.get("probability"),
            "picture": _thumbnail(pictures[entry["id"]]) if entry.get("id") in pictures else None,
        }
        for entry in (part(record, "result").get("mistakes") or ())[:MAX_PICTURES]
    ]


def _thumbnail(picture: Image) -> dict[str, Any]:
    """A small JPEG as a data URI; a picture of at most half the size is enlarged by the browser, pixel by pixel."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "pixelated": max(small.size) <= THUMBNAIL // 2}


def _notes(record: dict[str, Any]) -> list[str]:
    """The distinct notes of the data and the plan."""
    notes = [*(part(record, "dataset").get("notes") or ()), *(part(record, "plan").get("notes") or ())]
    return list(dict.fromkeys(map(str, notes)))


def _day(record: dict[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(str(record.get("created")))
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def _text(value: Any) -> str:
    """A value of the recipe or record, for people."""
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
