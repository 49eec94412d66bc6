"""`zoo show`: everything about one backbone."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from zoo.base.text import compact
from zoo.cli import complete, progress, render
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.render import Column
from zoo.models import lookup
from zoo.models.spec import BackboneSpec, Weights

# Licence names that forbid earning money with the weights: cc-by-nc-4.0, …-noncommercial-….
_NON_COMMERCIAL = re.compile(r"(?:^|-)nc(?:-|$)|non-?commercial", re.IGNORECASE)


def command(
    backbone: Annotated[
        str,
        typer.Argument(
            metavar="BACKBONE",
            help="A name from `zoo list`, or timm/ARCHITECTURE.",
            autocompletion=complete.backbone,
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> Answer:
    """Show one backbone: its layer groups, its weights with their licences, and how to adapt it.

    For example:

        zoo show resnet50
        zoo show timm/convnext_tiny
    """
    if _is_dynamic(backbone):
        with progress.shown("loading timm"):
            spec = lookup.get(backbone)
            facts = _built(spec)
    else:
        spec = lookup.get(backbone)
        facts = {"params": spec.params, "groups": [{"name": group.name, "match": group.match} for group in spec.groups]}
    document = {
        "name": spec.name,
        "full_name": spec.full_name,
        "plugin": spec.plugin,
        "distribution": spec.distribution,
        "version": spec.version,
        "arch": spec.arch,
        "params": facts["params"],
        "input": spec.input,
        "groups": facts["groups"],
        "weights": [_weights(weights) for weights in spec.weights],
    }
    return Answer(document, lambda: _show(document), as_json)


def non_commercial(license_name: str | None) -> bool:
    """Whether a licence's name says that the weights are not for commercial use."""
    return bool(license_name and _NON_COMMERCIAL.search(license_name))


def _is_dynamic(name: str) -> bool:
    """Whether timm has to be asked about this name, which takes seconds."""
    return any(plugin.dynamic and name.startswith(f"{plugin.name}/") for plugin in lookup.discover().plugins)


def _built(spec: BackboneSpec) -> dict[str, Any]:
    """Groups and sizes of a backbone whose manifest leaves them to the architecture; it is built without memory."""
    import torch

    from zoo.models import layer_groups, saved

    with torch.device("meta"):
        model = saved.build(spec, weights=None)
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    return {
        "params": sum(sizes.values()),
        "groups": [
            {"name": group.name, "params": sum(sizes[name] for name in group.parameters)}
            for group in layer_groups.assign(model, spec)
        ],
    }


def _weights(weights: Weights) -> dict[str, Any]:
    return {
        "name": weights.name,
        "source": weights.source,
        "license": weights.license,
        "non_commercial": non_commercial(weights.license),
        "num_classes": weights.num_classes,
        "input": weights.input,
    }


def _show(facts: dict[str, Any]) -> None:
    say(f"{facts['full_name']}, from {facts['distribution']} {facts['version']}")
    side = f", {facts['input']} x {facts['input']} images" if facts["input"] else ""
    say(f"timm architecture {facts['arch']}, {compact(facts['params'])} parameters{side}\n")
    say("Layer groups, from the images to the head")
    # A manifest says which tensors a group has, not how many parameters: that takes building the network.
    counted = all("params" in group for group in facts["groups"])
    columns = [Column("group"), *([Column("parameters", right=True)] if counted else [])]
    render.table(columns, [[row["name"], *([compact(row["params"])] if counted else [])] for row in facts["groups"]])
    say()
    if facts["weights"]:
        say("Weights, the default first")
        known = [key for key in ("num_classes", "input") if any(weights[key] for weights in facts["weights"])]
        columns = [Column("name"), Column("source"), Column("licence", wrap=True)]
        columns += [Column(key.removeprefix("num_"), right=True) for key in known]
        render.table(columns, [_weights_row(weights, known) for weights in facts["weights"]])
    else:
        say("Weights: none; it trains with --strategy scratch, or with --weights FILE")
    say()
    say("Adapt it:")
    say(f"  zoo adapt {printable(_shortest(facts))} --dataset FOLDER")
    if len(facts["weights"]) > 1:
        say(f"  zoo adapt {printable(_shortest(facts))} --weights {facts['weights'][1]['name']} --dataset FOLDER")


def _weights_row(weights: dict[str, Any], known: list[str]) -> list[str]:
    license_name = weights["license"] or "not stated"
    if weights["non_commercial"]:
        license_name += " (NOT for commercial use)"
    return [weights["name"], weights["source"], license_name, *(str(weights[key] or "-") for key in known)]


def _shortest(facts: dict[str, Any]) -> str:
    """The short name where it means this backbone alone."""
    same = [spec for spec in lookup.backbones() if spec.name == facts["name"]]
    return str(facts["name"] if len(same) == 1 and same[0].full_name == facts["full_name"] else facts["full_name"])
