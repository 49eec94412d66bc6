"""Backbone lookup: find a backbone by its name among the installed plugins, importing no plugin code."""

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

    Architectures that a dynamic plugin resolves at use (`timm/<architecture>`) are not among them.
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
    plugin_name, _, backbone_name = name.rpartition("/")
    installed = discover()
    candidates = [plugin for plugin in installed.plugins if plugin_name in ("", plugin.name)]
    if plugin_name and not candidates:
        raise _no_plugin(plugin_name, name, installed)
    # `resnet50.a1_in1k` is first a name of its own, then a name with a weights tag.
    stem, _, tag = backbone_name.partition(".")
    for short, weights_name in ((backbone_name, None), (stem, tag)):
        matches = [spec for plugin in candidates for spec in plugin.backbones if spec.name == short]
        if len(matches) > 1:
            owners = " and ".join(f"{spec.distribution} ({spec.full_name})" for spec in matches)
            fix = f"write {' or '.join(spec.full_name for spec in matches)}"
            raise PluginError(f"{short!r} is offered by two plugins: {owners}", fix=fix)
        if matches:
            return matches[0] if weights_name is None else _with_default_weights(matches[0], weights_name)
    for plugin in candidates:
        if plugin.dynamic and backbone_name and (spec := _dynamic(plugin, backbone_name)):
            return spec
    raise _unknown(name, backbone_name, installed)


def register_architectures(spec: BackboneSpec) -> None:
    """Import the module that registers a backbone's architecture, if its plugin has one; see `import_plugin`."""
    if spec.module is not None:
        import_plugin(spec)


def required(needs: Any, holder: str) -> BackboneSpec:
    """A backbone of the installed plugin that a model's config.json names under `zoo.requires` (`saved.requires`).

    A file can hold anything: its module is looked up among the installed plugins, never imported by its name. Raises
    PluginError, which names the `holder` ("the model in runs/a"), if no plugin in use has the module.
    """
    facts = needs if isinstance(needs, Mapping) else {}
    module, distribution, version = (facts.get(key) for key in ("module", "distribution", "version"))
    spec = next((spec for spec in backbones() if module is not None and spec.module == module), None)
    if spec is not None:
        return spec
    if not (isinstance(distribution, str) and _DISTRIBUTION.match(distribution)):
        why = f"its config.json says {distribution!r}, which is not a distribution's name"
        what = f"{holder} needs a plugin without a valid name"
        raise PluginError(what, why=why, fix="ask its author which plugin it needs")
    what = f"{holder} needs the plugin {distribution} {version or ''}".rstrip()
    if any(plugin.module == module for plugin in _hidden(discover()).values()):
        raise PluginError(what, why="ZOO_PLUGINS leaves it out", fix=_WIDEN)
    broken = next((fault for fault in scan().faults if same_name(fault.distribution, distribution)), None)
    if broken is not None:
        raise PluginError(what, why=str(broken), fix=broken.fix)
    entry = next((entry for entry in _catalogue().values() if same_name(entry.requirement, distribution)), None)
    why = f"no installed plugin has the module {module}; a plugin is its authors' Python code"
    why += ", so install it only if you trust them"
    raise PluginError(what, why=why, fix=entry.how_to_install if entry else f"zoo plugins install {distribution}")


def _with_default_weights(spec: BackboneSpec, tag: str) -> BackboneSpec:
    """The spec with these weights first; timm may know a tag that the manifest does not list."""
    default = next((weights for weights in spec.weights if weights.name == tag), Weights(name=tag, source="timm"))
    return replace(spec, weights=(default, *(weights for weights in spec.weights if weights.name != tag)))


def _dynamic(plugin: Plugin, backbone_name: str) -> BackboneSpec | None:
    """The spec of any timm architecture; None if timm has no such architecture."""
    import timm  # slow, and only needed for a name that no manifest lists

    arch, _, tag = backbone_name.partition(".")
    if not timm.is_model(arch):
        return None
    tags = [str(name).partition(".")[2] for name in timm.list_pretrained(f"{arch}.*")]
    default = timm.get_pretrained_cfg(arch, allow_unregistered=False)
    first = tag or str(getattr(default, "tag", "") or "")
    weights = []
    for name in ([first] if first in tags or tag else []) + [name for name in tags if name != first]:
        config = timm.get_pretrained_cfg(f"{arch}.{name}", allow_unregistered=False) if name in tags else None
        weights.append(Weights(name=name, source="timm", license=getattr(config, "license", None)))
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


def _no_plugin(plugin_name: str, name: str, installed: Discovery) -> PluginError:
    broken = next((fault for fault in installed.faults if fault.name == plugin_name), None)
    if broken is not None:
        return PluginError(f"{name!r} cannot be used", why=str(broken), fix=broken.fix)
    what = f"no plugin named {plugin_name!r} is installed"
    if plugin_name in _hidden(installed):
        return PluginError(f"the plugin {plugin_name!r} is not used", why="ZOO_PLUGINS leaves it out", fix=_WIDEN)
    absent = _catalogue().get(plugin_name)
    if absent is not None:
        return PluginError(what, why=f"{absent.name}: {absent.summary}", fix=absent.how_to_install)
    known = [plugin.name for plugin in installed.plugins]
    near = difflib.get_close_matches(plugin_name, known, n=1)
    fix = f"did you mean {near[0]}/…? " if near else ""
    return PluginError(what, fix=f"{fix}installed: {', '.join(known) or 'none'}")


def _unknown(name: str, backbone_name: str, installed: Discovery) -> PluginError:
    short = backbone_name.partition(".")[0]
    what = f"no installed plugin has a backbone named {name!r}"
    where = {
        spec.name: f"{spec.name} (plugin {plugin.name})" for plugin in installed.plugins for spec in plugin.backbones
    }
    hidden = next(
        (plugin for plugin in _hidden(installed).values() if short in {b.name for b in plugin.backbones}), None
    )
    if hidden is not None and short not in where:
        return PluginError(what, why=f"it is in the plugin {hidden.name}, which ZOO_PLUGINS leaves out", fix=_WIDEN)
    absent = _installable(short, installed)
    if absent is not None and short not in where:
        why = f"{short} is in the plugin {absent.name}, which is not installed ({absent.summary})"
        return PluginError(what, why=why, fix=absent.how_to_install)
    owner = name.rpartition("/")[0]
    dynamic = next((plugin for plugin in installed.plugins if plugin.dynamic and owner in ("", plugin.name)), None)
    declared = {} if dynamic and owner else where
    near = difflib.get_close_matches(short, declared, n=3, cutoff=0.7 if dynamic else 0.5)
    if dynamic and short and not near:
        import timm  # already loaded by `_dynamic`

        where = {arch: f"{dynamic.name}/{arch}" for arch in timm.list_models()} | declared
        near = difflib.get_close_matches(short, where, n=3, cutoff=0.6)
    fix = f"did you mean {', '.join(where[one] for one in near)}?" if near else ""
    fix = fix or "see `zoo list`, or name any timm architecture as timm/<architecture>"
    broken = ", ".join(fault.name for fault in installed.faults)
    why = f"these plugins are installed but not usable: {broken} (see `zoo plugins list`)" if broken else ""
    return PluginError(what, why=why, fix=fix)


def _hidden(installed: Discovery) -> dict[str, Plugin]:
    """The usable plugins that `ZOO_PLUGINS` leaves out, by name."""
    used = {plugin.name for plugin in installed.plugins}
    return {} if chosen() is None else {plugin.name: plugin for plugin in scan().plugins if plugin.name not in used}


def _installable(short: str, installed: Discovery) -> PluginEntry | None:
    """The registry's plugin that offers a backbone and is not installed; None if there is none."""
    names = {item.name for item in installed.everything}
    return next(
        (entry for entry in _catalogue().values() if short in entry.backbones and entry.name not in names), None
    )


def _catalogue() -> dict[str, PluginEntry]:
    try:
        return registry.load().plugins
    except ManifestError:  # a broken registry must not hide the error that the user needs
        return {}
