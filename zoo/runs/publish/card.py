"""The model card: `README.md` of a run folder, with the metadata that the Hub reads.

It says what was measured and what is known, and leaves out the rest: no licence that nobody stated, no data set that is
not on the Hub, no path of the machine that trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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

MAX_CLASSES = 100  # written out on the card; all of them are in config.json

# What starts markup, a link, a mention or a tag in the Hub's Markdown; an underscore inside a word does not.
_SPECIAL = re.compile(r"[\\`*\[\]<>#|~&$@^]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_STARTS_LIST = re.compile(r"^(\s*\d*)([.)](?=\s|$)|[-+=](?=[\s=-]|$))")  # at the start of a line: "- x", "1. x"


def model_card(record: Mapping[str, Any], *, repo: str | None = None, license_: str | None = None) -> str:
    """Write the card of a finished run.

    Args:
        record: The content of the run's `run.json`.
        repo: "ORG/NAME" where it is published; None: the card of a folder.
        license_: What it is published under; None: what the weights that it started from hand down.

    Returns:
        Markdown with a YAML header. Names of classes and data sets are escaped: they cannot become markup.
    """
    from jinja2 import ChainableUndefined, Environment, PackageLoader  # not before there is a card to write

    environment = Environment(
        loader=PackageLoader("zoo.runs.publish"),
        autoescape=False,  # escaped for Markdown instead, by `finalize`, unless marked as safe
        undefined=ChainableUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FORMATS, code=_code, literal=_literal)
    stack = record.get("kind") == "stack"
    chosen = license_ or ("" if stack else stated(part(record, "backbone", "weights").get("license")))
    where = {"repo": repo, "license": chosen, "source": f"hf-hub:{repo}" if repo else "local-dir:."}
    body = environment.get_template("stack.md.jinja" if stack else "card.md.jinja").render(_context(record) | where)
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    return f"---\n{_metadata(record, chosen).to_yaml()}\n---\n\n{body}\n"


def _context(record: Mapping[str, Any]) -> dict[str, Any]:
    dataset, backbone = part(record, "dataset"), part(record, "backbone")
    name = str(backbone.get("name") or "backbone")
    classes = [str(label) for label in dataset.get("classes") or ()]
    tasks = sentences.tasks_of(record)
    return {
        "name": name.rpartition("/")[2],
        "record": record,
        "finished": sentences.finished(record),
        "backbone": backbone,
        "weights": part(record, "backbone", "weights"),
        "base_model": _base_model(record),
        "stack": part(record, "stack"),
        "modules": sorted({m["module"] for m in part(record, "stack").get("members") or () if m.get("module")}),
        "dataset": dataset,
        "hub_dataset": _hub_dataset(record),
        "unlabelled": _unlabelled(record),
        "target": part(record, "target"),
        "blind": sentences.blind(record),
        "sets": [{**one, "hub": _place(one)} for one in dataset.get("sets") or ()],
        "classes": classes,
        "shown": classes[:MAX_CLASSES],
        "result": part(record, "result"),
        "tasks": dataset.get("tasks") or [],
        "sizes": [task.outputs for task in tasks],
        "usages": {task.kind: kinds.of(task).usage for task in tasks},
        "labels": part(record, "result").get("labels") or [],
        "most": MAX_CLASSES,
        "guess": _capital(sentences.guess(part(record, "result"))),
        "guesses": {name: _capital(sentences.guess(each)) for name, each in part(record, "result", "tasks").items()},
        "purpose": sentences.purpose(record),
        "data_config": part(record, "data_config"),
        "resolved": part(record, "resolved"),
        "recipe": _changed(record),
        # The objective's own parameters, `extra`, are not published.
        "phases": [
            phase | {"rows": group_rows(phase | {"extra": None})} for phase in part(record, "plan").get("phases") or ()
        ],
        "trained": sentences.trained_parameters(record),
        "environment": part(record, "environment"),
        "seconds": part(record, "seconds"),
        "caveats": sentences.caveats(record),
        "averages": sentences.averages(record),
        "dash": DASH,
    }


def _metadata(record: Mapping[str, Any], chosen: str) -> ModelCardData:
    """The YAML header; a key without a known value is left out."""
    result, base_model = part(record, "result"), _base_model(record)
    every = [*(part(record, "dataset").get("sets") or [part(record, "dataset")]), _unlabelled(record)]
    hub_datasets = list(dict.fromkeys(place for place in map(_place, every) if place))
    license_, license_name = _license(chosen)
    name = _line(record.get("name") or "model")
    return ModelCardData(
        model_name=name,
        library_name=None if record.get("kind") == "stack" else "timm",  # timm loads its members, and not it
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "transfer-learning", "adaptzoo"],
        license=license_,
        license_name=license_name,
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        datasets=hub_datasets or None,
        metrics=_metrics(record) if sentences.finished(record) else None,
        eval_results=_eval_results(record, result) if sentences.finished(record) else None,
    )


def _eval_results(record: Mapping[str, Any], result: Mapping[str, Any]) -> list[EvalResult]:
    measured = [(_data_of(record, name), metric, f"{title}, {name}" if name else title, value)
                for name, each in _each(result).items() for metric, title, value in _measures(each)]  # fmt: skip
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
    """What is known of the images that answer a task, of one of several data sets or of the only one; on one line."""
    dataset = part(record, "dataset")
    own = next((one for one in dataset.get("sets") or () if task in (one.get("tasks") or ())), None)
    split = part(record, "result").get("split") if own is None else own.get("reported_on")
    found = own or dataset
    return {**found, "name": _line(found.get("name") or "images"), "split": _line(split)}


def _metrics(record: Mapping[str, Any]) -> list[str]:
    """The ids of what is measured."""
    found = [metric for each in _each(part(record, "result")).values() for metric, _, _ in _measures(each)]
    return list(dict.fromkeys(found))


def _each(result: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The results of the tasks by name, the only one's without."""
    return part(result, "tasks") or {"": result}


def _measures(result: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """The Hub's id of each measure, what it is called, and its value."""
    return [(*measure.hub, result.get(measure.key)) for measure in facts_of(result).measures if measure.hub]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _license(chosen: str) -> tuple[str | None, str | None]:
    """A licence as (Hub id, name for what the Hub has no id for)."""
    if not chosen:
        return None, None
    if chosen in HUB_LICENSES:
        return chosen, None
    return "other", re.sub(r"[^a-z0-9.-]+", "-", chosen).strip("-") or None


def _base_model(record: Mapping[str, Any]) -> str | None:
    """The Hub repository that the weights came from; None when they came from anywhere else."""
    weights = part(record, "backbone", "weights")
    repo, _ = references.revised(str(weights.get("repo") or ""))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        return repo
    if weights.get("source") != "timm":
        return None
    from timm.models import get_pretrained_cfg  # takes seconds, and only this case needs it

    tagged = f"{part(record, 'backbone').get('arch')}.{weights.get('name')}"
    try:
        config = get_pretrained_cfg(tagged)
    except (RuntimeError, KeyError, AttributeError):  # a tag or architecture that this timm does not know
        return None
    repo = getattr(config, "hf_hub_id", None) or ""
    return f"{repo}{tagged}" if repo.endswith("/") else repo or None


def _hub_dataset(record: Mapping[str, Any]) -> str | None:
    """The data set's Hub id, where it is one and came from the Hub."""
    dataset = part(record, "dataset")
    return None if dataset.get("sets") else _place(dataset)


def _place(dataset: Mapping[str, Any]) -> str | None:
    """Where on the Hub a data set is."""
    reference = str(dataset.get("ref") or "")
    hub = str(dataset.get("hub") or (reference.removeprefix(HUB_DATA) if reference.startswith(HUB_DATA) else ""))
    return references.revised(hub)[0] or None


def _revision(dataset: Mapping[str, Any]) -> str | None:
    if not _place(dataset):
        return None
    return dataset.get("revision") or references.revised(str(dataset.get("ref") or ""))[1]


def _unlabelled(record: Mapping[str, Any]) -> dict[str, Any]:
    """The images without labels, with where on the Hub they are and what they were used for; empty without any."""
    found = part(record, "target") or part(record, "unlabelled")
    return {**found, "hub": _place(found), "role": sentences.unlabelled_role(record)} if found else {}


def _changed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Choices that differ from zoo's defaults; paths of the training machine stay there."""
    from zoo.recipes.recipe import Recipe

    defaults = Recipe().record()
    changed = {key: value for key, value in part(record, "recipe").items() if value != defaults.get(key)}
    if changed.get("tasks"):
        changed["tasks"] = ", ".join(without_place(text) for text in changed["tasks"])
    for key, value in changed.items():
        if isinstance(value, str) and key != "label_separator":
            changed[key] = references.public(value)
    return changed


def without_place(task: str) -> str:
    """A task as it was asked for, without the folder that its data set is in."""
    spec = TaskSpec.parse(task)
    return str(replace(spec, dataset=references.public(spec.dataset)))


def _escaped(value: Any) -> str:
    """Text as text in Markdown and HTML: every special character becomes a character reference."""
    if isinstance(value, Markup):
        return value
    text = printable(re.sub(r"\s+", " ", str(value)))
    text = _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", text)
    return _STARTS_LIST.sub(lambda match: f"{match[1]}&#{ord(match[2])};", text)


def _line(value: Any) -> str:
    """Text on one line: a line break in it could end the YAML header early."""
    return printable(" ".join(str(value).split()))


def _code(value: Any) -> Markup:
    """Text as inline code; HTML inside, so that no backtick or pipe in it can end the code or a table's cell."""
    return Markup(f"<code>{_escaped(str(value))}</code>")


def _literal(value: Any) -> Markup:
    """Plain text for a code block; line breaks are removed, and with them every way out of the block."""
    return Markup(_line(value).replace("```", ""))
