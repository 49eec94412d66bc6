"""Import the code of a plugin, and keep what it does to itself: raising, hanging, taking others' architectures."""

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

LONG = 5.0  # seconds; what a plugin needs beside torch and timm is imported in a fraction of that

_log = logging.getLogger(__name__)
_owners: dict[str, str] = {}  # architecture -> the distribution whose module registered it
_refused: dict[str, str] = {}  # module -> what it took; Python keeps it as imported


def import_plugin(spec: BackboneSpec) -> None:
    """Import the module that registers a backbone's architecture.

    Raises:
        PluginError: The module cannot be imported, or registered an architecture that timm or another plugin has; the
            registry of timm is then as it was before. The message names the distribution.
    """
    assert spec.module is not None
    owner = f"{spec.distribution} {spec.version}"
    if spec.module in _refused:
        raise _no_owner(spec, owner)
    before = _entrypoints()
    failure: BaseException | None = None
    try:
        with _watched(spec.module, owner):
            importlib.import_module(spec.module)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises is that plugin's fault
        failure = error
    taken = {arch: _owners.get(arch) or _package(before[arch]) for arch in _put_back(before, owner)}
    _owners.update(dict.fromkeys(_entrypoints().keys() - before.keys(), owner))
    if taken:
        _refused[spec.module] = ", ".join(f"{arch} of {other}" for arch, other in taken.items())
        raise _no_owner(spec, owner)
    if failure is not None:
        raise PluginError(
            f"{spec.full_name} cannot be built: importing {spec.module} from {owner} failed",
            why=one_line(failure),
            fix=_fix(spec),
        ) from failure


def at_fault(spec: BackboneSpec, error: BaseException) -> PluginError:
    """The error for a plugin whose code failed while one of its backbones was built."""
    return PluginError(
        f"{spec.full_name} cannot be built: {spec.arch} of {spec.distribution} {spec.version} failed",
        why=one_line(error),
        fix=_fix(spec),
    )


def _no_owner(spec: BackboneSpec, owner: str) -> PluginError:
    assert spec.module is not None
    return PluginError(
        f"{spec.full_name} cannot be built: {owner} registers architectures that are not its own",
        why=f"importing {spec.module} would have taken the place of {_refused[spec.module]}",
        fix=_fix(spec),
    )


def _fix(spec: BackboneSpec) -> str:
    return f"report it to the authors of {spec.distribution}, or: zoo plugins uninstall {spec.distribution}"


def _entrypoints() -> dict[str, Callable[..., Any]]:
    """Every architecture that timm knows now, and the function that builds it."""
    import timm

    return {arch: timm.model_entrypoint(arch) for arch in timm.list_models()}


def _put_back(before: dict[str, Callable[..., Any]], owner: str) -> list[str]:
    """Register again, with their weights, what was registered over by somebody else than its owner; their names."""
    from timm.models import register_model

    now = _entrypoints()
    taken = [arch for arch, function in before.items() if now.get(arch) is not function and _owners.get(arch) != owner]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm tells that a name is taken, which is what is meant here
        for arch in taken:
            register_model(before[arch])
    return taken


def _package(function: Callable[..., Any]) -> str:
    return function.__module__.partition(".")[0]


@contextlib.contextmanager
def _watched(module: str, owner: str) -> Iterator[None]:
    """Name whoever keeps people waiting. A hanging import cannot be ended from within, but Ctrl-C ends the command."""

    def tell() -> None:
        _log.warning("importing %s of %s takes long; Ctrl-C stops waiting for it", module, owner)

    timer = threading.Timer(LONG, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        _log.warning("stopped while importing %s of %s", module, owner)
        raise
    finally:
        timer.cancel()
