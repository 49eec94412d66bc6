"""Numbers as text, for the terminal, the report and the model card.

What is not a number, such as None, becomes `DASH`: a record from elsewhere may lack any value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from zoo.base.untrusted import is_finite

DASH = "\N{EN DASH}"


def percent(share: Any, digits: int = 1) -> str:
    """A share of 1 as a percentage: 0.934 -> "93.4%". A share below 1 is never rounded to 100%."""
    if not is_finite(share):
        return DASH
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) >= 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{text}%"


def interval(bounds: Any) -> str:
    """Two shares as a range: "91.2 to 95.0%"."""
    if not isinstance(bounds, Sequence) or len(bounds) != 2 or not all(map(is_finite, bounds)):
        return DASH
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}%"


def count(value: Any) -> str:
    """A whole number with thousands separators: "1,234"."""
    return f"{int(value):,}" if is_finite(value) else DASH


def plural(value: Any, one: str, many: str = "") -> str:
    """A number and its noun: "1 image", "1,234 images"."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def compact(value: Any) -> str:
    """A large number in three digits: 25557032 -> "25.6 M"."""
    return _in_units(value, {" G": 1e9, " M": 1e6, " k": 1e3}, "")


def size(bytes_: Any) -> str:
    """Bytes in three digits, in units of 1000: "1.92 GB"."""
    return _in_units(bytes_, {" GB": 1e9, " MB": 1e6, " kB": 1e3}, " B")


def _in_units(value: Any, units: dict[str, float], unit: str) -> str:
    if not is_finite(value):
        return DASH
    large = next((name for name, size in units.items() if abs(value) >= size * 0.9995), None)
    return f"{value:g}{unit}" if large is None else f"{value / units[large]:.3g}{large}"


def number(value: Any, digits: int = 3) -> str:
    """A measured number, rounded to `digits` decimals."""
    return f"{value:.{digits}f}" if is_finite(value) else DASH


def p_value(value: Any) -> str:
    """A p value in three decimals, never rounded to 0: "0.080", "< 0.001"."""
    return "< 0.001" if is_finite(value) and value < 0.001 else number(value)


def rate(value: Any) -> str:
    """A learning rate or decay in three digits: "0.001", "3.13e-5"."""
    return f"{value:.3g}".replace("e-0", "e-") if is_finite(value) else DASH


def duration(seconds: Any) -> str:
    """A time span: "4.2 s", "1 min 12 s", "2 h 05 min", "3 d 04 h"."""
    if not is_finite(seconds) or seconds < 0:
        return DASH
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24:02d} h"


def aligned(rows: Sequence[Sequence[str]], right: Collection[str]) -> list[str]:
    """The lines of a plain table whose first row names the columns; those named in `right` align to the right."""
    rows = [["-" if cell == DASH else cell for cell in row] for row in rows]  # plain ASCII for grep and awk
    columns = []
    for cells in zip(*rows, strict=True):
        justify = str.rjust if cells[0] in right else str.ljust
        columns.append([justify(cell, max(map(len, cells))) for cell in cells])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


FORMATS = {each.__name__: each for each in (percent, interval, count, plural, compact, size, number, p_value, rate,
                                            duration)}  # fmt: skip
"""The template filters, by name."""
