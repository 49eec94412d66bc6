"""Plugin imports: load a plugin's code; it may fail, hang or take others' architectures."""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from zoo.errors import PluginError
from zoo.models.plugins.discovery import one_line
from zoo.models.spec import BackboneSpec

LONG = 5.0  # seconds; a plugin's own imports, without torch and timm, take a fraction of that

_log = logging.getLogger(__name__)
_owners: dict[str, str] = {}  # architecture -> the distribution whose module registered it
_refused: dict[str, str] = {}  # module -> what it took; Python keeps it as imported


def import_plugin(spec: BackboneSpec) -> None:
    """Import the module that registers a backbone's architecture.

    Raises PluginError if that fails, or if it registers an architecture that timm or another plugin has: timm's
    registry is then as it was before.
    """
    assert spec.module is not None
    owner = f"{spec.distribution} {spec.version}"
    if spec.module in _refused:
        raise _not_its_own(spec, owner, spec.module)
    before = _entrypoints()
    failure: BaseException | None = None
    try:
        with _watched(spec.module, owner):
            importlib.import_module(spec.module)
    except (Exception, SystemExit) as error:  # whatever a plugin's module raises is that plugin's fault
        failure = error
    taken = {arch: _owners.get(arch) or before[arch].__module__.partition(".")[0] for arch in _put_back(before, owner)}
    _owners.update(dict.fromkeys(_entrypoints().keys() - before.keys(), owner))
    if taken:
        _refused[spec.module] = ", ".join(f"{arch} of {other}" for arch, other in taken.items())
        raise _not_its_own(spec, owner, spec.module)
    if failure is not None:
        raise _failed(spec, f"importing {spec.module} from {owner} failed", one_line(failure)) from failure


def at_fault(spec: BackboneSpec, error: BaseException) -> PluginError:
    """The error for a plugin whose code failed while one of its backbones was built."""
    return _failed(spec, f"{spec.arch} of {spec.distribution} {spec.version} failed", one_line(error))


def _not_its_own(spec: BackboneSpec, owner: str, module: str) -> PluginError:
    why = f"importing {module} would have taken the place of {_refused[module]}"
    return _failed(spec, f"{owner} registers architectures that are not its own", why)


def _failed(spec: BackboneSpec, cause: str, why: str) -> PluginError:
    fix = f"report it to the authors of {spec.distribution}, or: zoo plugins uninstall {spec.distribution}"
    return PluginError(f"{spec.full_name} cannot be built: {cause}", why=why, fix=fix)


def _entrypoints() -> dict[str, Callable[..., Any]]:
    """The architectures that timm knows now, with the functions that build them."""
    import timm

    return {arch: timm.model_entrypoint(arch) for arch in timm.list_models()}


def _put_back(before: dict[str, Callable[..., Any]], owner: str) -> list[str]:
    """Register again, with their weights, the architectures that another distribution replaced; returns their names."""
    from timm.models import register_model

    now = _entrypoints()
    taken = [arch for arch, function in before.items() if now.get(arch) is not function and _owners.get(arch) != owner]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns that a name is taken, which is intended here
        for arch in taken:
            register_model(before[arch])
    return taken


@contextlib.contextmanager
def _watched(module: str, owner: str) -> Iterator[None]:
    """Warn about an import that takes long: it cannot be ended from within, but Ctrl-C ends the command."""
    message = "importing %s of %s takes long; Ctrl-C stops waiting for it"
    timer = threading.Timer(LONG, _log.warning, (message, module, owner))
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        _log.warning("stopped while importing %s of %s", module, owner)
        raise
    finally:
        timer.cancel()
