"""Find plugins by their entry points, and backbones by their names, without importing plugin code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Literal

from zoo import registry
from zoo.errors import ManifestError, PluginError
from zoo.manifest import read_manifest
from zoo.registry import PluginEntry
from zoo.spec import BackboneSpec, Plugin, Weights

GROUP = "zoo.plugins"


@dataclass(frozen=True, slots=True)
class PluginFault:
    """A plugin that is installed but cannot be used, and why."""

    name: str  # the entry point's name
    distribution: str
    version: str
    status: Literal["error", "incompatible"]  # incompatible: it needs a newer adaptzoo
    cause: str  # one line
    fix: str = ""

    def __str__(self) -> str:
        """One line that names the distribution, its version and the cause."""
        fix = f" ({self.fix})" if self.fix else ""
        return f"plugin {self.name!r} from {self.distribution} {self.version} is not usable: {self.cause}{fix}"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is installed: usable plugins and faults side by side, each sorted by name."""

    plugins: tuple[Plugin, ...]
    faults: tuple[PluginFault, ...]


@cache
def discover() -> Discovery:
    """Read the manifest of every installed plugin.

    Nothing of a plugin is imported: an entry point names a file in a top-level package, and the package is only
    located. One broken plugin never hides another.
    """
    found: dict[str, list[tuple[EntryPoint, str, str]]] = defaultdict(list)
    seen: set[str] = set()
    plugins: list[Plugin] = []
    faults: list[PluginFault] = []
    for distribution in distributions():
        stem = _file_name(distribution)
        if stem in seen:  # an earlier entry of sys.path shadows it
            continue
        seen.add(stem)
        try:
            entries = distribution.entry_points.select(group=GROUP)
        except Exception as error:  # a file that cannot be parsed; most distributions are no business of ours
            if _mentions_us(distribution):
                name, version = _identity(distribution, stem)
                cause = f"its entry_points.txt cannot be read: {_one_line(error)}"
                faults.append(PluginFault(name, name, version, "error", cause, f"reinstall or uninstall {name}"))
            continue
        for entry in entries:
            found[entry.name].append((entry, *_identity(distribution, stem)))
    for name in sorted(found):
        claims = found[name]
        if len(claims) > 1:
            owners = " and ".join(sorted(f"{owner} {version}" for _, owner, version in claims))
            for _, owner, version in claims:
                cause = f"its name is claimed by {owners}"
                faults.append(PluginFault(name, owner, version, "error", cause, "uninstall one of them"))
            continue
        entry, owner, version = claims[0]
        try:
            path = _manifest_path(entry, owner)
            plugins.append(read_manifest(path, entry_point=name, distribution=owner, version=version))
        except ManifestError as error:
            status: Literal["error", "incompatible"] = "incompatible" if "upgrade adaptzoo" in error.fix else "error"
            cause = f"{error.what}: {error.why}" if error.why else error.what
            faults.append(PluginFault(name, owner, version, status, cause, error.fix))
        except Exception as error:  # a stranger's packaging can fail in any way; it must not stop the others
            faults.append(PluginFault(name, owner, version, "error", _one_line(error)))
    return Discovery(tuple(plugins), tuple(sorted(faults, key=lambda fault: (fault.name, fault.distribution))))


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
        PluginError: The module cannot be imported; the message names the distribution.
    """
    if spec.module is None:
        return
    try:
        importlib.import_module(spec.module)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises is that plugin's fault
        raise PluginError(
            f"{spec.full_name} cannot be built: importing {spec.module} from {spec.distribution} {spec.version} failed",
            why=_one_line(error),
            fix=f"report it to the authors of {spec.distribution}, or: pip uninstall {spec.distribution}",
        ) from error


def _file_name(distribution: Distribution) -> str:
    """The distribution's normalised name from its folder's name: parsing everybody's METADATA costs 50 ms."""
    folder = getattr(distribution, "_path", None)  # absent for finders that keep no files
    name = Path(str(folder)).name if folder is not None else str(distribution.metadata["Name"])
    name = re.sub(r"\.(dist-info|egg-info|egg)\Z", "", name)
    name = re.sub(r"-[0-9][^-]*(-py[0-9.]+)?\Z", "", name)
    return re.sub(r"[-_.]+", "-", name).lower()


def _identity(distribution: Distribution, stem: str) -> tuple[str, str]:
    """Name and version for messages; a damaged installation has lost its METADATA."""
    metadata = distribution.metadata
    name, version = (metadata[key] if metadata and key in metadata else None for key in ("Name", "Version"))
    return str(name or stem), str(version or "(version unknown)")


def _mentions_us(distribution: Distribution) -> bool:
    try:
        return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:
        return False


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _manifest_path(entry: EntryPoint, owner: str) -> Path:
    package, _, file = entry.value.partition(":")
    if not package or "." in package or not file:
        raise ManifestError(
            f"the entry point must be 'package:zoo.yaml' with a top-level package, not {entry.value!r}",
        )
    located = importlib.util.find_spec(package)
    if located is None or not located.submodule_search_locations:
        raise ManifestError(
            f"the package {package!r} is not there",
            why="it may be half-uninstalled",
            fix=f"reinstall or uninstall {owner}",
        )
    for folder in located.submodule_search_locations:
        path = Path(folder) / file
        if path.is_file():
            return path
    raise ManifestError(f"the package {package!r} has no file {file!r}", fix=f"reinstall or uninstall {owner}")


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
    known = [plugin.name for plugin in found.plugins]
    near = difflib.get_close_matches(plugin_name, known, n=1)
    fix = f"did you mean {near[0]}/…? " if near else ""
    fix += f"installed: {', '.join(known) or 'none'}"
    return PluginError(f"no plugin named {plugin_name!r} is installed", fix=fix)


def _unknown(name: str, rest: str, found: Discovery) -> PluginError:
    short = rest.partition(".")[0]
    where = {spec.name: spec.full_name for plugin in found.plugins for spec in plugin.backbones}
    near = difflib.get_close_matches(short, where, n=3, cutoff=0.5)
    if not near and any(plugin.dynamic for plugin in found.plugins):
        import timm

        near = difflib.get_close_matches(short, timm.list_models(), n=3, cutoff=0.6)
        where.update({arch: f"timm/{arch}" for arch in near})
    absent = _installable(short, found)
    if absent is not None and short not in where:
        fix = f"{short} is in the plugin {absent.name}, which is not installed (distribution {absent.requirement})"
    elif near:
        fix = "did you mean " + ", ".join(f"{one} (plugin {where[one].partition('/')[0]})" for one in near) + "?"
    else:
        fix = "see `zoo list`, or name any timm architecture as timm/<architecture>"
    broken = ", ".join(fault.name for fault in found.faults)
    why = f"these plugins are installed but not usable: {broken} (see `zoo plugins list`)" if broken else ""
    return PluginError(f"no installed plugin has a backbone named {name!r}", why=why, fix=fix)


def _installable(short: str, found: Discovery) -> PluginEntry | None:
    """The registry's plugin that offers a backbone and is not installed, if there is one."""
    try:
        entries = registry.load().plugins.values()
    except ManifestError:  # a fault of the catalogue is not what the person asked about
        return None
    here = {plugin.name for plugin in found.plugins} | {fault.name for fault in found.faults}
    return next((entry for entry in entries if short in entry.backbones and entry.name not in here), None)
