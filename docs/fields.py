"""A griffe extension: a record's fields are explained by the comment beside them, or by the help that a choice has."""

from __future__ import annotations

import ast
from typing import Any

import griffe


class Fields(griffe.Extension):
    """Adds a section `Attributes:` to the docstrings of dataclasses."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Collect what stands beside the fields."""
        if cls.docstring is None or not any("dataclass" in str(item.value) for item in cls.decorators):
            return
        lines = cls.module.lines_collection[cls.filepath]  # type: ignore[index]
        told = {}
        for name, field in cls.attributes.items():
            if field.inherited:  # its lines are in another file
                continue
            source = "\n".join(lines[field.lineno - 1 : field.endlineno])  # type: ignore[operator]
            if text := _help(source) or _comment(source):
                told[name] = text
        if told:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(f"    {name}: {text}" for name, text in told.items())


def _help(source: str) -> str:
    """The second argument of `choice(default, help, …)`."""
    for call in ast.walk(ast.parse(source.strip())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "choice":
            return str(ast.literal_eval(call.args[1]))
    return ""


def _comment(source: str) -> str:
    _, _, text = source.partition("  # ")
    return text
