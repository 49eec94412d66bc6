"""Find plugins by their entry points, and backbones by their names, without importing plugin code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.base import registry
from zoo.base.registry import PluginEntry
from zoo.errors import ManifestError, PluginError
from zoo.models.plugins.discovery import Discovery, PluginFault, chosen, discover, same_name, scan
from zoo.models.plugins.importing import at_fault, import_plugin
from zoo.models.spec import BackboneSpec, Plugin, Weights

__all__ = ["Discovery", "PluginFault", "at_fault", "backbones", "discover", "get", "register_architectures", "required"]

_WIDEN = "add it to ZOO_PLUGINS, or unset ZOO_PLUGINS"


_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def backbones() -> tuple[BackboneSpec, ...]:
    """Every backbone that installed plugins declare, in the plugins' order.

    Architectures that a dynamic plugin resolves at use (`timm/<architecture>`) are not in it.
    """
    return tuple(backbone for plugin in discover().plugins for backbone in plugin.backbones)


def get(name: str) -> BackboneSpec:
    """Find one backbone.

    Args:
        name: A short name (`resnet50`), a full name (`resnet/resnet50`), either with a weights tag
            (`resnet50.a1_in1k`), or any timm architecture as `timm/<architecture>[.<tag>]`.

    Raises:
        PluginError: No plugin has it (the nearest names are suggested), or two plugins offer it.
    """
    plugin_name, _, rest = name.rpartition("/")
    found = discover()
    if plugin_name:
        owner = next((plugin for plugin in found.plugins if plugin.name == plugin_name), None)
        if owner is None:
            raise _no_plugin(plugin_name, name, found)
        candidates = [owner]
    else:
        candidates = list(found.plugins)
    for short, tag in _readings(rest):
        matches = [spec for plugin in candidates for spec in plugin.backbones if spec.name == short]
        if len(matches) > 1:
            owners = " and ".join(f"{spec.distribution} ({spec.full_name})" for spec in matches)
            fix = f"write {' or '.join(spec.full_name for spec in matches)}"
            raise PluginError(f"{short!r} is offered by two plugins: {owners}", fix=fix)
        if matches:
            return _with_default_weights(matches[0], tag)
    for plugin in candidates:
        if plugin.dynamic and rest:
            spec = _dynamic(plugin, rest)
            if spec is not None:
                return spec
    raise _unknown(name, rest, found)


def register_architectures(spec: BackboneSpec) -> None:
    """Import the module that registers a backbone's architecture, if its plugin has one.

    Raises:
        PluginError: The module cannot be imported, or registers what is not its own; the message names the
            distribution.
    """
    if spec.module is not None:
        import_plugin(spec)


def required(needs: Any, holder: str) -> BackboneSpec:
    """Find the installed plugin that a saved model needs, as its config.json says under `zoo.requires`.

    What a stranger's file names is looked up among the installed plugins, and never imported for being named.

    Args:
        needs: A mapping with `distribution`, `version` and `module`, as `saved.requires` gives it; a file can
            hold anything, so anything is taken.
        holder: What needs it, for the message: "the model in runs/a", "the model ORG/NAME".

    Returns:
        A backbone of that plugin, for `register_architectures`.

    Raises:
        PluginError: No plugin that is used has the module; the message says how to install it.
    """
    facts = needs if isinstance(needs, Mapping) else {}
    module, distribution, version = (facts.get(key) for key in ("module", "distribution", "version"))
    spec = next((spec for spec in backbones() if module is not None and spec.module == module), None)
    if spec is not None:
        return spec
    if not (isinstance(distribution, str) and _DISTRIBUTION.match(distribution)):
        raise PluginError(
            f"{holder} needs a plugin that it does not name rightly",
            why=f"its config.json says {distribution!r}, which is no distribution's name",
            fix="ask whoever made it which plugin it needs",
        )
    what = f"{holder} needs the plugin {distribution} {version or ''}".rstrip()
    if any(plugin.module == module for plugin in _hidden(discover()).values()):
        raise PluginError(what, why="ZOO_PLUGINS leaves it out", fix=_WIDEN)
    broken = next((fault for fault in scan().faults if same_name(fault.distribution, distribution)), None)
    if broken is not None:
        raise PluginError(what, why=str(broken), fix=broken.fix)
    entry = next((entry for entry in _catalogue().values() if same_name(entry.requirement, distribution)), None)
    raise PluginError(
        what,
        why=f"no installed plugin has the module {module}; a plugin is its authors' Python code, so install it only "
        "if you trust them",
        fix=entry.how_to_install if entry else f"zoo plugins install {distribution}",
    )


def _readings(rest: str) -> list[tuple[str, str | None]]:
    """`resnet50.a1_in1k` is first a name of its own, then a name with a weights tag."""
    readings: list[tuple[str, str | None]] = [(rest, None)]
    if "." in rest:
        short, _, tag = rest.partition(".")
        readings.append((short, tag))
    return readings


def _with_default_weights(spec: BackboneSpec, tag: str | None) -> BackboneSpec:
    if tag is None:
        return spec
    chosen = next((weights for weights in spec.weights if weights.name == tag), None)
    if chosen is None:  # a tag that the manifest does not list: timm may know it
        chosen = Weights(name=tag, source="timm")
    rest = tuple(weights for weights in spec.weights if weights.name != tag)
    return replace(spec, weights=(chosen, *rest))


def _dynamic(plugin: Plugin, rest: str) -> BackboneSpec | None:
    """The spec of any timm architecture; None where timm has no such architecture."""
    import timm  # only a name that no manifest lists comes here

    arch, _, tag = rest.partition(".")
    if not timm.is_model(arch):
        return None
    tags = [str(name).partition(".")[2] for name in timm.list_pretrained(f"{arch}.*")]
    default = timm.get_pretrained_cfg(arch, allow_unregistered=False)
    first = tag or str(getattr(default, "tag", "") or "")
    ordered = ([first] if first in tags or tag else []) + [name for name in tags if name != first]
    weights = []
    for name in ordered:
        declared = timm.get_pretrained_cfg(f"{arch}.{name}", allow_unregistered=False) if name in tags else None
        weights.append(Weights(name=name, source="timm", license=getattr(declared, "license", None)))
    size = getattr(default, "input_size", None)
    return BackboneSpec(
        name=arch,
        plugin=plugin.name,
        arch=arch,
        params=None,
        input=int(size[-1]) if size else None,
        weights=tuple(weights),
        groups=(),
        module=plugin.module,
        distribution=plugin.distribution,
        version=plugin.version,
    )


def _no_plugin(plugin_name: str, name: str, found: Discovery) -> PluginError:
    broken = next((fault for fault in found.faults if fault.name == plugin_name), None)
    if broken is not None:
        return PluginError(f"{name!r} cannot be used", why=str(broken), fix=broken.fix)
    what = f"no plugin named {plugin_name!r} is installed"
    if plugin_name in _hidden(found):
        return PluginError(f"the plugin {plugin_name!r} is not used", why="ZOO_PLUGINS leaves it out", fix=_WIDEN)
    absent = _catalogue().get(plugin_name)
    if absent is not None:
        return PluginError(what, why=f"{absent.name}: {absent.summary}", fix=absent.how_to_install)
    known = [plugin.name for plugin in found.plugins]
    near = difflib.get_close_matches(plugin_name, known, n=1)
    fix = f"did you mean {near[0]}/…? " if near else ""
    fix += f"installed: {', '.join(known) or 'none'}"
    return PluginError(what, fix=fix)


def _unknown(name: str, rest: str, found: Discovery) -> PluginError:
    short = rest.partition(".")[0]
    what = f"no installed plugin has a backbone named {name!r}"
    where = {spec.name: f"{spec.name} (plugin {plugin.name})" for plugin in found.plugins for spec in plugin.backbones}
    hidden = next((plugin for plugin in _hidden(found).values() if short in {b.name for b in plugin.backbones}), None)
    if hidden is not None and short not in where:
        return PluginError(what, why=f"it is in the plugin {hidden.name}, which ZOO_PLUGINS leaves out", fix=_WIDEN)
    absent = _installable(short, found)
    if absent is not None and short not in where:
        why = f"{short} is in the plugin {absent.name}, which is not installed ({absent.summary})"
        return PluginError(what, why=why, fix=absent.how_to_install)
    asked = name.rpartition("/")[0]
    dynamic = next((plugin for plugin in found.plugins if plugin.dynamic and asked in ("", plugin.name)), None)
    declared = {} if dynamic and asked else where
    near = difflib.get_close_matches(short, declared, n=3, cutoff=0.7 if dynamic else 0.5)
    if dynamic and short and not near:
        import timm  # loaded already, by looking the name up

        where = {arch: f"{dynamic.name}/{arch}" for arch in timm.list_models()} | declared
        near = difflib.get_close_matches(short, where, n=3, cutoff=0.6)
    if near:
        fix = f"did you mean {', '.join(where[one] for one in near)}?"
    else:
        fix = "see `zoo list`, or name any timm architecture as timm/<architecture>"
    broken = ", ".join(fault.name for fault in found.faults)
    why = f"these plugins are installed but not usable: {broken} (see `zoo plugins list`)" if broken else ""
    return PluginError(what, why=why, fix=fix)


def _hidden(found: Discovery) -> dict[str, Plugin]:
    """The usable plugins that `ZOO_PLUGINS` leaves out, by name."""
    used = {plugin.name for plugin in found.plugins}
    return {} if chosen() is None else {plugin.name: plugin for plugin in scan().plugins if plugin.name not in used}


def _installable(short: str, found: Discovery) -> PluginEntry | None:
    """The registry's plugin that offers a backbone and is not installed, if there is one."""
    here = {plugin.name for plugin in found.plugins} | {fault.name for fault in found.faults}
    entries = _catalogue().values()
    return next((entry for entry in entries if short in entry.backbones and entry.name not in here), None)


def _catalogue() -> dict[str, PluginEntry]:
    try:
        return registry.load().plugins
    except ManifestError:  # a fault of the catalogue is not what the person asked about
        return {}
