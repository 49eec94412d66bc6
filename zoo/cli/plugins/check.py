"""`zoo plugins check`: the conformance kit over a plugin's backbones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from zoo.base.text import plural
from zoo.cli import progress, render
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, printable, say
from zoo.cli.render import Column
from zoo.errors import PluginError
from zoo.events import Progress
from zoo.models import lookup
from zoo.models.plugins import discovery


def command(
    name: Annotated[str, argument("NAME", "A plugin, or one backbone as PLUGIN/BACKBONE.")],
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the checks that train and save a model.")] = False,
    as_json: Json = False,
) -> Answer:
    """Check that a plugin's backbones keep the contracts that adaptation relies on. This runs the plugin's code.

    It needs no pretrained weights. The exit code is 1 if a check fails; the page about writing plugins lists them all.

    For example:

        zoo plugins check legacy --fast
        zoo plugins check resnet/resnet_nano
    """
    names = _backbones(name)
    rows: list[dict[str, Any]] = []
    with progress.shown("loading torch and timm") as listen:
        from zoo import testing

        for number, backbone in enumerate(names):
            listen(Progress(f"checking {backbone}", number, len(names)))
            checks = testing.check_backbone(backbone, numerics=not fast)
            ok = all(check.ok for check in checks)
            rows.append({"backbone": backbone, "ok": ok, "checks": list(map(asdict, checks))})
        listen(Progress("checking", len(names), len(names)))
    failed = [row for row in rows if not row["ok"]]
    return Answer(rows, lambda: _show(rows, failed), as_json, exit_code=1 if failed else 0)


def _backbones(name: str) -> list[str]:
    """The full names of the backbones to check."""
    if "/" in name:
        return [lookup.get(name).full_name]
    found = discovery.scan()
    named = [item for item in found.plugins if item.name == name]
    named += [item for item in found.plugins if discovery.same_name(item.distribution, name)]
    plugin = next(iter(named), None)
    if plugin is None:
        broken = next((item for item in found.faults if name in (item.name, item.distribution)), None)
        if broken is not None:
            raise PluginError(f"the plugin {name!r} cannot be checked", why=str(broken), fix=broken.fix)
        installed = ", ".join(item.name for item in found.plugins) or "none"
        raise PluginError(f"no plugin named {name!r} is installed", fix=f"installed: {installed}")
    if not plugin.backbones:
        raise PluginError(
            f"the plugin {name!r} lists no backbones to check",
            fix=f"name one of its architectures, such as: zoo plugins check {plugin.name}/resnet10t",
        )
    return [spec.full_name for spec in plugin.backbones]


def _show(rows: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(check["name"] for row in rows for check in row["checks"]))
    cells = []
    for row in rows:
        marks = {check["name"]: "ok" if check["ok"] else "FAIL" for check in row["checks"]}
        cells.append([row["backbone"], *(marks.get(column, "-") for column in columns)])
    render.table([Column("backbone"), *(Column(column, wrap=True) for column in columns)], cells)
    say()
    for row in failed:
        for check in row["checks"]:
            if not check["ok"]:
                detail = printable(check["detail"], lines=True).strip().replace("\n", "\n  ")
                say(f"{printable(row['backbone'])}: {check['name']}: {detail}")
    good = len(rows) - len(failed)
    say(f"{plural(good, 'backbone')} of {len(rows)} {'keeps' if good == 1 else 'keep'} the contracts")
