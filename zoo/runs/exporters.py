"""Exporters: a finished model, written in another format; a file of `zoo/runs/export` each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

from zoo.base.files import replacing
from zoo.errors import RunError
from zoo.events import Listener, ignore
from zoo.runs import export as folder
from zoo.runs.run_folder import Run
from zoo.runs.use import Classifier, open_classifier


class Exporter(NamedTuple):
    """What an exporter's file has as `EXPORTER`."""

    suffix: str  # of the file that it writes: ".onnx"
    write: Callable[[Classifier, Path], None]  # a model in eval mode, its preprocessing and its classes
    modules: tuple[str, ...] = ()  # packages from outside that `write` imports, by the names that pip knows

    @property
    def missing(self) -> list[str]:
        """Its modules that are not installed."""
        return [name for name in self.modules if find_spec(name) is None]


def formats() -> list[str]:
    """The formats there are: names of the files, none of which is imported."""
    return sorted(file.name for file in iter_modules(folder.__path__))


def export(model: str | Path | Run, to: str, out: Path, *, on_event: Listener = ignore) -> Path:
    """Write a model in another format; if that fails, `out` stays as it was.

    Raises:
        RunError: There is no such format, or what it needs is not installed.
        ZooError: The model cannot be used, or the file cannot be written.
    """
    if to not in formats():
        raise RunError(f"no export format named {to!r}", fix=f"choose one of {', '.join(formats())}")
    exporter: Exporter = import_module(f"{folder.__name__}.{to}").EXPORTER
    if exporter.missing:
        missing = " ".join(exporter.missing)
        raise RunError(f"{to} files are written with {missing}, not installed here", fix=f"run: pip install {missing}")
    path = out if out.suffix == exporter.suffix else out.with_name(out.name + exporter.suffix)
    with replacing(path) as temporary:
        exporter.write(open_classifier(model, on_event), temporary)
    return path
