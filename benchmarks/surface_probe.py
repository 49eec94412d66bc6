"""Prints what only a running zoo knows: every command's options, and the exit code for each kind of error, as JSON.

Its text is given to `python -c` in a process that imports the revision in question.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import typer

from zoo.cli import main
from zoo.errors import ZooError

_COMMAND = ("help", "epilog", "hidden", "deprecated", "no_args_is_help")
_OPTION = ("opts", "secondary_opts", "default", "required", "hidden", "help", "metavar", "multiple", "envvar",
           "rich_help_panel")  # fmt: skip


def _facts(entry: Any, names: tuple[str, ...], **more: str) -> str:
    known = {name: getattr(entry, name, None) for name in names} | more
    said = {name: value for name, value in known.items() if value not in (None, False, [], "")}
    return json.dumps(said, default=str, ensure_ascii=False)


def _options(command: Any, name: str, found: dict[str, str]) -> dict[str, str]:
    found[name] = _facts(command, _COMMAND)
    for entry in command.params:
        kind = getattr(getattr(entry, "type_descriptor", None), "annotation", getattr(entry, "type", ""))
        found[f"{name} {max(entry.opts, key=len)}"] = _facts(entry, _OPTION, type=str(kind))
    for each, inner in getattr(command, "commands", {}).items():
        _options(inner, f"{name} {each}", found)
    return found


def _kinds(kind: type[BaseException]) -> list[type[BaseException]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _codes() -> dict[str, str]:
    """What `zoo` ends with, by what a command raises."""
    faults = [*(kind("x") for kind in _kinds(ZooError)), KeyboardInterrupt(), MemoryError(), ValueError("x"),
              BrokenPipeError(), SystemExit(3), SystemExit("x"), typer.Abort(), typer.BadParameter("x")]  # fmt: skip
    codes = {}
    for fault in faults:

        def fail(*_: object, fault: BaseException = fault, **__: object) -> None:
            raise fault

        setattr(main, "app", fail)  # noqa: B010  # the checker knows better than to assign it
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            codes[f"{type(fault).__name__}{fault.args}"] = str(main.run(["list"]))
    return codes


if __name__ == "__main__":
    options = _options(typer.main.get_command(main.app), "zoo", {})
    print(json.dumps({"options": options, "exit codes": _codes()}))
