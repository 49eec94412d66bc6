"""Model card: `README.md` of a run folder, with the Hub's metadata.

It leaves out what is not known or not public: a licence that was not stated, local data sets and paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from zoo.base import references
from zoo.base.references import HUB_DATA
from zoo.base.text import DASH, FORMATS
from zoo.base.untrusted import is_finite
from zoo.errors import printable
from zoo.recipes.plan_table import group_rows
from zoo.runs.publish.licenses import HUB_LICENSES, stated
from zoo.runs.report import sentences
from zoo.runs.report.sentences import part
from zoo.tasks import kinds
from zoo.tasks.schema import TaskSpec, facts_of

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_CLASSES = 100  # listed on the card; config.json has all of them

# What starts markup, a link, a mention or a tag in the Hub's Markdown; an underscore inside a word does not.
_SPECIAL = re.compile(r"[\\`*\[\]<>#|~&$@^]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_STARTS_LIST = re.compile(r"^(\s*\d*)([.)](?=\s|$)|[-+=](?=[\s=-]|$))")  # at the start of a line: "- x", "1. x"


def model_card(record: Mapping[str, Any], *, repo: str | None = None, license_: str | None = None) -> str:
    """The card of a run as Markdown with a YAML header; names from the data are escaped.

    `repo` ("ORG/NAME") is None for the card of a folder; `license_` is by default that of the initial weights.
    """
    stack = record.get("kind") == "stack"
    chosen = license_ or ("" if stack else stated(part(record, "backbone", "weights").get("license")))
    where = {"repo": repo, "license": chosen, "source": f"hf-hub:{repo}" if repo else "local-dir:."}
    body = _environment().get_template("stack.md.jinja" if stack else "card.md.jinja").render(_context(record) | where)
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    return f"---\n{_metadata(record, chosen).to_yaml()}\n---\n\n{body}\n"


@cache
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, PackageLoader  # imported only to write a card

    environment = Environment(
        loader=PackageLoader("zoo.runs.publish"),
        autoescape=False,  # `finalize` escapes for Markdown instead, unless marked as safe
        undefined=ChainableUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FORMATS, code=_code, literal=_literal)
    return environment


def _context(record: Mapping[str, Any]) -> dict[str, Any]:
    dataset, result, tasks = part(record, "dataset"), part(record, "result"), sentences.tasks_of(record)
    classes = [str(label) for label in dataset.get("classes") or ()]
    parts = ("backbone", "stack", "dataset", "target", "result", "data_config", "resolved", "environment", "seconds")
    return {
        **{name: part(record, name) for name in parts},
        "name": str(part(record, "backbone").get("name") or "backbone").rpartition("/")[2],
        "record": record,
        "finished": sentences.finished(record),
        "weights": part(record, "backbone", "weights"),
        "base_model": _base_model(record),
        "modules": sorted({m["module"] for m in part(record, "stack").get("members") or () if m.get("module")}),
        "hub_dataset": None if dataset.get("sets") else _place(dataset),
        "unlabelled": _unlabelled(record),
        "blind": sentences.blind(record),
        "sets": [{**one, "hub": _place(one)} for one in dataset.get("sets") or ()],
        "classes": classes,
        "shown": classes[:MAX_CLASSES],
        "tasks": dataset.get("tasks") or [],
        "sizes": [task.outputs for task in tasks],
        "usages": {task.kind: kinds.of(task).usage for task in tasks},
        "labels": result.get("labels") or [],
        "most": MAX_CLASSES,
        "guess": _capital(sentences.guess(result)),
        "guesses": {name: _capital(sentences.guess(each)) for name, each in part(result, "tasks").items()},
        "purpose": sentences.purpose(record),
        "recipe": _changed(record),
        # The objective's own parameters, `extra`, are not published.
        "phases": [
            phase | {"rows": group_rows(phase | {"extra": None})} for phase in part(record, "plan").get("phases") or ()
        ],
        "trained": sentences.trained_parameters(record),
        "caveats": sentences.caveats(record),
        "averages": sentences.averages(record),
        "dash": DASH,
    }


def _metadata(record: Mapping[str, Any], chosen: str) -> ModelCardData:
    """The YAML header; unknown keys are left out."""
    base_model, finished = _base_model(record), sentences.finished(record)
    every = [*(part(record, "dataset").get("sets") or [part(record, "dataset")]), _unlabelled(record)]
    hub_datasets = list(dict.fromkeys(filter(None, map(_place, every))))
    license_, license_name = _license(chosen)
    return ModelCardData(
        model_name=_line(record.get("name") or "model"),
        library_name=None if record.get("kind") == "stack" else "timm",  # timm loads a stack's members only
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "transfer-learning", "adaptzoo"],
        license=license_,
        license_name=license_name,
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        datasets=hub_datasets or None,
        metrics=list(dict.fromkeys(metric for _, metric, _, _ in _measures(record))) if finished else None,
        eval_results=_eval_results(record) if finished else None,
    )


def _eval_results(record: Mapping[str, Any]) -> list[EvalResult]:
    measured = [(_data_of(record, task), metric, f"{title}, {task}" if task else title, value)
                for task, metric, title, value in _measures(record)]  # fmt: skip
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=_place(data) or re.sub(r"[^A-Za-z0-9_.-]+", "-", data["name"]).strip("-.") or "images",
            dataset_name=data["name"],
            dataset_split=data["split"],
            dataset_revision=_revision(data),
            metric_type=metric,
            metric_name=title,
            metric_value=round(value, 6),
            metric_args={"average": "macro"} if metric == "f1" else None,
        )
        for data, metric, title, value in measured
        if is_finite(value)
    ]


def _data_of(record: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's data set, with its name and test split on one line."""
    dataset = part(record, "dataset")
    own = next((one for one in dataset.get("sets") or () if task in (one.get("tasks") or ())), None)
    split = part(record, "result").get("split") if own is None else own.get("reported_on")
    found = own or dataset
    return {**found, "name": _line(found.get("name") or "images"), "split": _line(split)}


def _measures(record: Mapping[str, Any]) -> list[tuple[str, str, str, Any]]:
    """Each measure's task (empty for a single one), id on the Hub, title and value."""
    results = part(record, "result", "tasks") or {"": part(record, "result")}
    return [
        (task, *measure.hub, result.get(measure.key))
        for task, result in results.items()
        for measure in facts_of(result).measures
        if measure.hub
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _license(chosen: str) -> tuple[str | None, str | None]:
    """A licence as the Hub's id, and a name if the id is "other"."""
    if not chosen or chosen in HUB_LICENSES:
        return chosen or None, None
    return "other", re.sub(r"[^a-z0-9.-]+", "-", chosen).strip("-") or None


def _base_model(record: Mapping[str, Any]) -> str | None:
    """The Hub repository of the initial weights; None if they are from elsewhere."""
    weights = part(record, "backbone", "weights")
    repo, _ = references.revised(str(weights.get("repo") or ""))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        return repo
    if weights.get("source") != "timm":
        return None
    from timm.models import get_pretrained_cfg  # takes seconds to import, and is rarely needed

    tagged = f"{part(record, 'backbone').get('arch')}.{weights.get('name')}"
    try:
        config = get_pretrained_cfg(tagged)
    except (RuntimeError, KeyError, AttributeError):  # a tag or architecture unknown to this timm
        return None
    repo = getattr(config, "hf_hub_id", None) or ""
    return f"{repo}{tagged}" if repo.endswith("/") else repo or None


def _place(dataset: Mapping[str, Any]) -> str | None:
    """A data set's repository on the Hub."""
    reference = str(dataset.get("ref") or "")
    hub = str(dataset.get("hub") or (reference.removeprefix(HUB_DATA) if reference.startswith(HUB_DATA) else ""))
    return references.revised(hub)[0] or None


def _revision(dataset: Mapping[str, Any]) -> str | None:
    if not _place(dataset):
        return None
    return dataset.get("revision") or references.revised(str(dataset.get("ref") or ""))[1]


def _unlabelled(record: Mapping[str, Any]) -> dict[str, Any]:
    """The unlabelled images, with their place on the Hub and their use; empty if there are none."""
    found = part(record, "target") or part(record, "unlabelled")
    return {**found, "hub": _place(found), "role": sentences.unlabelled_role(record)} if found else {}


def _changed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Choices that differ from zoo's defaults, without local paths."""
    from zoo.recipes.recipe import Recipe

    defaults = Recipe().record()
    changed = {key: value for key, value in part(record, "recipe").items() if value != defaults.get(key)}
    if isinstance(changed.get("tasks"), list):
        changed["tasks"] = ", ".join(without_place(text) for text in changed["tasks"])
    for key, value in changed.items():
        if isinstance(value, str) and key != "label_separator":
            changed[key] = references.public(value)
    return changed


def without_place(task: Any) -> str:
    """A task as given by the user, without the path of its data set."""
    try:
        spec = TaskSpec.parse(task)
    except ValueError:  # a damaged record
        return references.public(str(task))
    return str(replace(spec, dataset=references.public(spec.dataset)))


def _escaped(value: Any) -> str:
    """Text for Markdown and HTML: special characters become character references."""
    if isinstance(value, Markup):
        return value
    text = printable(re.sub(r"\s+", " ", str(value)))
    text = _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", text)
    return _STARTS_LIST.sub(lambda match: f"{match[1]}&#{ord(match[2])};", text)


def _line(value: Any) -> str:
    """Text on one line: a line break could end the YAML header early."""
    return printable(" ".join(str(value).split()))


def _code(value: Any) -> Markup:
    """Text as inline code, in HTML so that no backtick or pipe in it ends the code or a table cell."""
    return Markup(f"<code>{_escaped(str(value))}</code>")


def _literal(value: Any) -> Markup:
    """Text for a code block, on one line so that it cannot end the block."""
    return Markup(_line(value).replace("```", ""))
