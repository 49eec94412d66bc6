"""Dataclass fields with limits in their metadata, and the check of a value against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any

from zoo.base.untrusted import is_finite


def choice(default: Any, help: str, *, choices: tuple[str, ...] = (), low: float = -math.inf, high: float = math.inf,
           more_than: float = -math.inf, metavar: str = "", words: tuple[str, ...] = (),
           several: tuple[str, ...] = ()) -> Any:  # fmt: skip
    """A dataclass field whose metadata describe it to users and to `field_faults`.

    Args:
        default: The default value, or its factory.
        help: One sentence for the command line.
        choices: The valid texts; empty: any.
        low: The smallest valid number.
        high: The largest valid number.
        more_than: An exclusive lower limit.
        metavar: The placeholder in a usage line.
        words: Texts that are valid instead of a number.
        several: Those of `choices` that can be combined with commas.
    """
    limits = {
        "help": help,
        "choices": choices,
        "low": low,
        "high": high,
        "more_than": more_than,
        "metavar": metavar,
        "words": words,
        "several": several,
    }
    kind = {"default_factory": default} if callable(default) else {"default": default}
    return field(**kind, metadata=limits)


def field_faults(entry: Field[Any], value: Any) -> list[str]:
    """The faults of one field's value, by its annotation (a text: postponed evaluation) and its limits."""
    limits, name, kind = entry.metadata, entry.name, str(entry.type)
    if value is None:
        return [] if "None" in kind or kind == "Rate" else [f"{name}: must not be empty"]
    if limits["choices"]:
        parts = value.split(",") if limits["several"] and isinstance(value, str) else [value]
        if len(parts) > 1 and len({*parts}) == len(parts) and {*parts} <= {*limits["several"]}:
            return []
        if value in limits["choices"]:
            return []
        several = f", nor several of {', '.join(limits['several'])} with commas between" if limits["several"] else ""
        return [f"{name}: {value!r} is not one of {', '.join(limits['choices'])}{several}"]
    if value in limits["words"]:
        return []
    if kind == "bool":
        return [] if isinstance(value, bool) else [f"{name}: must be true or false, not {value!r}"]
    if "str" in kind:
        return [] if isinstance(value, str) and value else [f"{name}: must be a text"]
    if not is_finite(value):
        return [f"{name}: must be a number{''.join(f' or {word}' for word in limits['words'])}, not {value!r}"]
    if "int" in kind and not isinstance(value, int):
        return [f"{name}: must be a whole number, not {value!r}"]
    if value <= limits["more_than"]:
        return [f"{name}: must be more than {limits['more_than']}, not {value}"]
    if not limits["low"] <= value <= limits["high"]:
        low = limits["low"] if math.isfinite(limits["low"]) else limits["more_than"]
        if math.isfinite(limits["high"]):
            return [f"{name}: must lie between {low} and {limits['high']}, not {value}"]
        return [f"{name}: must be at least {low}, not {value}"]
    return []


def mapping_faults(name: str, values: Any) -> list[str]:
    """The faults of a field that maps names to numbers."""
    if not isinstance(values, Mapping):
        return [f"{name}: must map names to numbers"]
    return [f"{name}[{key}]: must be a number of at least 0" for key, value in values.items()
            if not isinstance(key, str) or not is_finite(value) or value < 0]  # fmt: skip
