"""`zoo plugins show`: everything about one plugin."""

from __future__ import annotations

from typing import Annotated, Any

from zoo.base import registry
from zoo.base.registry import PluginEntry
from zoo.base.text import compact
from zoo.cli import render
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.plugins.list import offer
from zoo.cli.render import Column
from zoo.cli.show import weights_document
from zoo.errors import PluginError
from zoo.models.plugins import discovery
from zoo.models.plugins.discovery import PluginFault
from zoo.models.spec import Plugin


def command(
    name: Annotated[str, argument("NAME", "A plugin from `zoo plugins list` or `zoo plugins search`.")],
    as_json: Json = False,
) -> Answer:
    """Show one plugin, installed or not: where it comes from, its backbones, groups, weights and their licences.

    For example:

        zoo plugins show resnet
    """
    found = discovery.scan()
    plugin = next((item for item in found.plugins if _named(item, name)), None)
    faults = [item for item in found.faults if _named(item, name)]
    entry = registry.load().plugins.get(name)
    if plugin is not None:
        document = _installed(plugin)
        return Answer(document, lambda: _show_installed(document), as_json)
    if faults:
        document = _broken(faults[0])
        return Answer(document, lambda: say("\n".join(map(printable, faults))), as_json)
    if entry is not None:
        document = _available(entry)
        return Answer(document, lambda: _show_available(entry), as_json)
    raise PluginError(f"no plugin named {name!r} is installed or in the registry", fix="see `zoo plugins search`")


def _named(item: Plugin | PluginFault, name: str) -> bool:
    return item.name == name or discovery.same_name(item.distribution, name)


def _installed(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "status": "ok",
        "distribution": plugin.distribution,
        "version": plugin.version,
        "error": None,
        "summary": plugin.summary,
        "api": plugin.api,
        "module": plugin.module,
        "manifest": str(plugin.root),
        "offers": offer(plugin),
        "backbones": [
            {
                "name": spec.name,
                "arch": spec.arch,
                "params": spec.params,
                "input": spec.input,
                "groups": [group.name for group in spec.groups],
                "weights": [weights_document(weights) for weights in spec.weights],
            }
            for spec in plugin.backbones
        ],
    }


def _broken(fault: PluginFault) -> dict[str, Any]:
    return {"name": fault.name, "status": fault.status, "distribution": fault.distribution, "version": fault.version,
            "error": fault.cause, "fix": fault.fix, "backbones": []}  # fmt: skip


def _available(entry: PluginEntry) -> dict[str, Any]:
    return {"name": entry.name, "status": "not installed", "distribution": entry.requirement, "version": None,
            "error": None, "summary": entry.summary, "homepage": entry.homepage, "published": entry.published,
            "fix": entry.how_to_install, "backbones": [{"name": name} for name in entry.backbones]}  # fmt: skip


def _show_installed(facts: dict[str, Any]) -> None:
    say(f"{facts['name']}, from {printable(facts['distribution'])} {printable(facts['version'])}")
    if facts["summary"]:
        say(printable(facts["summary"]))
    code = f"the module {facts['module']}, imported when a backbone is built" if facts["module"] else "none"
    say(f"manifest  {printable(facts['manifest'])}, api {facts['api']}")
    say(f"code      {printable(code)}\n")
    if not facts["backbones"]:
        say(f"It offers {', '.join(facts['offers'])}")
        return
    columns = [Column("backbone"), Column("architecture"), Column("params", right=True), Column("input", right=True),
               Column("groups", wrap=True), Column("weights and their licences", wrap=True)]  # fmt: skip
    rows = [[row["name"], row["arch"], compact(row["params"]), str(row["input"] or "-"),
             ", ".join(row["groups"]) or "-", ", ".join(_licensed(weights) for weights in row["weights"]) or "none"]
            for row in facts["backbones"]]  # fmt: skip
    render.table(columns, rows)


def _licensed(weights: dict[str, Any]) -> str:
    terms = weights["license"] or "licence not stated"
    return f"{weights['name']} ({terms}{', NOT for commercial use' if weights['non_commercial'] else ''})"


def _show_available(entry: PluginEntry) -> None:
    say(f"{entry.name}, not installed; distribution {printable(entry.requirement)}")
    say(printable(entry.summary))
    if entry.homepage:
        say(f"homepage  {printable(entry.homepage)}")
    say(f"offers    {printable(', '.join(entry.backbones) or 'see its homepage')}\n")
    say(f"to install it: {printable(entry.how_to_install)}")
