"""`zoo list`: the backbones that are installed."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Annotated, Any

from zoo.base.text import compact
from zoo.cli import progress, render
from zoo.cli.options import argument
from zoo.cli.output import Answer, Json, warn
from zoo.cli.render import Column
from zoo.errors import PluginError
from zoo.models import lookup
from zoo.models.lookup import Discovery
from zoo.models.spec import BackboneSpec, Plugin

_PLACEHOLDER = "<architecture>"
_SHOWN = 3  # weights named in a row; `zoo show` has them all
_PATTERN = "Part of a name, or a pattern such as 'resnet/*d'. With 'timm/…' it searches all of timm."


def command(
    pattern: Annotated[str | None, argument("PATTERN", _PATTERN)] = None,
    as_json: Json = False,
) -> Answer:
    """List the backbones of the installed plugins.

    For example:

        zoo list
        zoo list 'vgg*_bn'
        zoo list 'timm/*convnext*'
    """
    found = lookup.discover()
    for fault in found.faults:
        warn(str(fault))
    rows = _rows(found, pattern)
    if pattern is not None and not rows:
        raise _nothing(found, pattern)

    def show() -> None:
        columns = [Column("backbone"), Column("plugin"), Column("params", right=True), Column("input", right=True),
                   Column("groups", right=True), Column("weights", wrap=True)]  # fmt: skip
        render.table(columns, [_cells(row) for row in rows])

    return Answer(rows, show, as_json)


def _rows(found: Discovery, pattern: str | None) -> list[dict[str, Any]]:
    for plugin in found.plugins:
        if pattern is not None and plugin.dynamic and pattern.startswith(f"{plugin.name}/"):
            return _architectures(plugin, pattern.partition("/")[2] or "*")
    rows = [_row(spec) for plugin in found.plugins for spec in plugin.backbones]
    for plugin in found.plugins:
        if plugin.dynamic:  # one row stands for all of its architectures
            name = f"{plugin.name}/{_PLACEHOLDER}"
            rows.append(_architecture(plugin, name, name))
    if pattern is None:
        return rows
    glob = _glob(pattern)
    return [row for row in rows if any(fnmatch.fnmatchcase(row[key], glob) for key in ("name", "full_name"))]


def _glob(pattern: str) -> str:
    return pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"


def _row(spec: BackboneSpec) -> dict[str, Any]:
    plain = {key: getattr(spec, key) for key in ("name", "full_name", "plugin", "arch", "params", "input")}
    weights, groups = ([entry.name for entry in entries] for entries in (spec.weights, spec.groups))
    return {**plain, "weights": weights, "groups": groups}


def _architecture(plugin: Plugin, name: str, full_name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name, "full_name": full_name, "plugin": plugin.name, "arch": None, "params": None, "input": None,
            "weights": [], "groups": [], **facts}  # fmt: skip


def _architectures(plugin: Plugin, pattern: str) -> list[dict[str, Any]]:
    """A row for each timm architecture that matches."""
    with progress.shown("loading timm"):
        import timm  # only here: a plain `zoo list` has to be quick

        names = timm.list_models()
        tagged: dict[str, list[str]] = {}
        for name in timm.list_pretrained():
            arch, _, tag = str(name).partition(".")
            tagged.setdefault(arch, []).append(tag)
    rows = []
    for arch in (name for name in names if fnmatch.fnmatchcase(name, _glob(pattern))):
        declared = timm.get_pretrained_cfg(arch, allow_unregistered=False)
        default = str(getattr(declared, "tag", "") or "")
        tags = sorted(tagged.get(arch, []), key=lambda tag: tag != default)  # stable: the default goes first
        size = getattr(declared, "input_size", None)
        facts = {"arch": arch, "input": int(size[-1]) if size else None, "weights": tags}
        rows.append(_architecture(plugin, arch, f"{plugin.name}/{arch}", **facts))
    return rows


def _cells(row: dict[str, Any]) -> Sequence[str]:
    weights = row["weights"]
    more = f" +{len(weights) - _SHOWN}" if len(weights) > _SHOWN else ""
    return [
        row["name"] if row["groups"] else row["full_name"],
        row["plugin"],
        compact(row["params"]),
        str(row["input"] or "-"),
        str(len(row["groups"]) or "-"),
        ", ".join(weights[:_SHOWN]) + more or "-",
    ]


def _nothing(found: Discovery, pattern: str) -> PluginError:
    dynamic = next((plugin.name for plugin in found.plugins if plugin.dynamic), None)
    fix = "see `zoo list` for all of them"
    if dynamic is not None and not pattern.startswith(f"{dynamic}/"):
        rest = pattern.rpartition("/")[2].strip("*")
        fix = f"search all of timm: zoo list '{dynamic}/*{rest}*'"
    return PluginError(f"no backbone matches {pattern!r}", fix=fix)
