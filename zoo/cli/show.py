"""`zoo show`: everything about one backbone."""

from __future__ import annotations

import re
from typing import Annotated, Any

from zoo.base.text import compact
from zoo.cli import complete, progress, render
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.render import Column
from zoo.models import lookup
from zoo.models.spec import BackboneSpec, Weights

# Licence names that forbid earning money with the weights: cc-by-nc-4.0, …-noncommercial-….
_NON_COMMERCIAL = re.compile(r"(?:^|-)nc(?:-|$)|non-?commercial", re.IGNORECASE)


def command(
    backbone: Annotated[str, argument("BACKBONE", "A name from `zoo list`, or timm/ARCHITECTURE.", complete.backbone)],
    as_json: Json = False,
) -> Answer:
    """Show one backbone: its layer groups, its weights with their licences, and how to adapt it.

    For example:

        zoo show resnet50
        zoo show timm/convnext_tiny
    """
    # timm has to be loaded for a dynamic plugin's names, which takes seconds.
    if any(plugin.dynamic and backbone.startswith(f"{plugin.name}/") for plugin in lookup.discover().plugins):
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
        "weights": [weights_document(weights, "num_classes", "input") for weights in spec.weights],
    }
    return Answer(document, lambda: _show(document), as_json)


def weights_document(weights: Weights, *more: str) -> dict[str, Any]:
    """Name, source and licence of weights, whether its name says that it forbids commercial use, and further fields."""
    known = {"name": weights.name, "source": weights.source, "license": weights.license}
    forbidden = bool(weights.license and _NON_COMMERCIAL.search(weights.license))
    return {**known, "non_commercial": forbidden, **{key: getattr(weights, key) for key in more}}


def _built(spec: BackboneSpec) -> dict[str, Any]:
    """Layer groups and parameter counts if the manifest leaves them to the architecture; built on the meta device."""
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


def _show(facts: dict[str, Any]) -> None:
    say(f"{facts['full_name']}, from {facts['distribution']} {facts['version']}")
    side = f", {facts['input']} x {facts['input']} images" if facts["input"] else ""
    say(f"timm architecture {facts['arch']}, {compact(facts['params'])} parameters{side}\n")
    say("Layer groups, from the images to the head")
    # A manifest says which tensors a group has, not how many parameters: that takes building the network.
    counted = all("params" in group for group in facts["groups"])
    columns = [Column("group"), *([Column("parameters", right=True)] if counted else [])]
    render.table(columns, [[row["name"], *([compact(row["params"])] if counted else [])] for row in facts["groups"]])
    if facts["weights"]:
        say("\nWeights, the default first")
        known = [key for key in ("num_classes", "input") if any(weights[key] for weights in facts["weights"])]
        columns = [Column("name"), Column("source"), Column("licence", wrap=True)]
        columns += [Column(key.removeprefix("num_"), right=True) for key in known]
        render.table(columns, [_weights_row(weights, known) for weights in facts["weights"]])
    else:
        say("\nWeights: none; it trains with --strategy scratch, or with --weights FILE")
    name = printable(_shortest(facts))
    say(f"\nAdapt it:\n  zoo adapt {name} --dataset FOLDER")
    if len(facts["weights"]) > 1:
        say(f"  zoo adapt {name} --weights {facts['weights'][1]['name']} --dataset FOLDER")


def _weights_row(weights: dict[str, Any], known: list[str]) -> list[str]:
    license_name = weights["license"] or "not stated"
    if weights["non_commercial"]:
        license_name += " (NOT for commercial use)"
    return [weights["name"], weights["source"], license_name, *(str(weights[key] or "-") for key in known)]


def _shortest(facts: dict[str, Any]) -> str:
    """The short name, if only this backbone has it."""
    same = [spec for spec in lookup.backbones() if spec.name == facts["name"]]
    return str(facts["name"] if len(same) == 1 and same[0].full_name == facts["full_name"] else facts["full_name"])
